"""What a user may do: pure decisions, run by web processes before anything is queued; no Flask, no Redis.

Start reading at authorize.py; the single rules are in `rules`, and what only a run can check in runner/enforcement.py.
May import `identity`, `playbooks`, `config`, `models` and `errors`. Stays empty: runs load `reserved_variables` alone.
"""
