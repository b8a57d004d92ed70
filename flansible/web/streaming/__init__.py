"""Replies that last: one event loop per web process for Server-Sent Events and followed output; long polls.

May import `web.middleware`, `web.context`, `web.serialization`, `store` and what stands below.
"""
