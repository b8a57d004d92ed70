"""`flansible up`: prepares one machine, then goes on as the parent process of all roles on it.

May import `identity`, `authorization`, `config`, `system` and `errors`. Stays empty: the parent process holds little.
"""
