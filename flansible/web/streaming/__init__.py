"""Long-lived replies: one event loop per web process for Server-Sent Events, followed output and long polls.

May import `web.middleware`, `web.context`, `web.serialization`, `store` and what stands below.
"""
