"""`flansible backup` and `flansible restore`: all that a service on one machine cannot make again, in one file.

Commands of their own process. The service may run while a backup is written, and must not run while one is restored.
May import `history`, `store`, `config`, `system` and `errors`.
"""
