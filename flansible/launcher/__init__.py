"""`flansible up`: prepares one machine, then execs the parent process of all roles on it.

May import `identity`, `authorization`, `config`, `system` and `errors`. Stays empty: the parent process needs little
memory.
"""
