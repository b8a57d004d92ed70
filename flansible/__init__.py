"""Flansible: run Ansible ad-hoc commands and playbooks over HTTP."""

__version__ = "0.1.0"
