"""The program that Ansible wraps around a Python module: adds programs to it without a change to what it prints.

No line of the wrapper moves, as a module that dies outside of Ansible's own handling prints the wrapper's line numbers.
Called in the run process.
"""

from __future__ import annotations

_ANCHOR = "    import tempfile"  # in the wrapper's main function, which has imported little before


def add_program(wrapper: str, program: str) -> str:
    """Returns the wrapper with this program run early in it; `ansible_module` is the module's name."""
    call = f"exec({program!r}, {{'ansible_module': ansible_module}})"
    return wrapper.replace(_ANCHOR, f"{_ANCHOR}; {call}", 1)
