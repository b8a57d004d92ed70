"""The server below the app: takes connections, gathers whole requests, sends replies to clients at their own speed.

Run by web processes, as gunicorn's worker (flansible.web.server.worker). May import `web.streaming`, `web.middleware`,
`system` and what stands below.
"""
