"""ansible-runner's Python API, asked by peers.py: lines of JSON in, how long each run took out.

Runs in ansible-runner's own environment, in one process for all runs, as a service that uses it would.
"""

import json
import sys
import time

import ansible_runner

for line in sys.stdin:
    began = time.perf_counter()
    found = ansible_runner.run(quiet=True, **json.loads(line))
    seconds = time.perf_counter() - began
    print(json.dumps({"seconds": seconds, "status": found.status}), flush=True)
