"""The generated documents, OpenAPI 3.1 and Swagger 1.2, and their pages; made when a web process creates its app.

May import `web.middleware` and what stands below; the routes are handed in.
"""
