"""Projects on a worker's machine: mirrors of repositories, read-only trees of commits, installed requirements.

The worker holds leases on trees that runs use; a run process of the runner, which is supervised, fetches and builds
them, and runs git and ansible-galaxy. Nothing here loads Ansible. May import `system` and `errors`.
"""
