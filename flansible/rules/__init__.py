"""The rules for users other than admin, a module for each kind of thing they are about.

Pure; called by flansible.authorization alone. A rule lets pass what is allowed, with paths resolved where there are
any, or raises Forbidden with its code, the field and what to do. Several of them are kept again by the run, which knows
what Ansible makes of a request.
"""
