"""The resources of the API, one module per URL family; run by web processes.

May import `web.login`, `web.streaming`, `web.middleware`, `web.preview_run` and what stands below.
"""
