"""Operating-system helpers for every kind of process: files, limits, process identity, ssh control sockets.

May import `errors` alone. Stays empty: the fork server and the parent process load single modules.
"""
