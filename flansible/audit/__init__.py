"""The tamper-evident audit log: writing it (web processes, Flower, the commands) and verifying it (`flansible audit`).

May import `errors` and `system`.
"""
