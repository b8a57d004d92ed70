"""The rules for users other than admin, one module for each kind of thing they restrict; pure, run by web processes.

Called by `authorization.authorize` alone. A rule returns what is allowed, with paths resolved where there are any, or
raises Forbidden with its code, the field and what to do. `runner.enforcement` checks several of them again within the
run, where it is known what Ansible makes of a request. May import what `authorization` may.
"""
