"""What a user may do: pure decisions, run by web processes before anything is queued; no Flask, no Redis.

May import `identity`, `playbooks`, `config`, `models` and `errors`. Stays empty: runs load `reserved_variables` alone.
"""
