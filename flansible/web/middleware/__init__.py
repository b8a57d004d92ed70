"""Middleware of every request: proxy headers, cross-origin checks, security headers, audit context, error replies.

Run by web processes. May import `web.context`, `web.parsing`, `web.serialization`, the throttles and what stands below.
"""
