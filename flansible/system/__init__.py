"""Operating-system helpers that every kind of process shares; standard library only.

May import `errors` alone. Stays empty: the fork server and the parent process load single modules.
"""
