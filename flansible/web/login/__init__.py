"""Authentication over HTTP: Basic, bearer tokens, the session cookie; run by web processes.

May import `web.middleware`, `web.context`, `identity`, `store` and what stands below.
"""
