"""`python -m flansible` and the console script `flansible`."""

from flansible.cli import main

if __name__ == "__main__":
    main()
