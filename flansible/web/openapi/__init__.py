"""The generated documents, OpenAPI 3.1 and Swagger 1.2, and their pages; made by web processes when first asked for.

May import `web.middleware` and what stands below; the routes are handed in.
"""
