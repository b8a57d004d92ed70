"""Serves the API's documents: Swagger 1.2 with its page, OpenAPI 3.1 with Swagger UI, rbac.json's schema.

`create_app` calls `register` after the routes are registered. A document is made when it is first asked for, once in
each web process: all of them take half a second, which is most of a start. Everything here is public and read-only, and
no page loads anything from other hosts: a Content-Security-Policy forbids it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from flask import Flask, Response, json, jsonify, redirect, request, send_from_directory
from werkzeug.exceptions import NotFound
from werkzeug.wrappers import Response as AnyResponse

from flansible.identity import rbac_schema
from flansible.web.middleware import security_headers
from flansible.web.openapi import openapi31, swagger12
from flansible.web.route_types import Route

_SPEC = "/api/spec"
_OPENAPI = "/api/openapi.json"
_PAGE = "/api/docs"
_RBAC_SCHEMA = "/api/rbac.schema.json"

_UI_ASSETS = Path(str(resources.files("flask_swagger_ui"))) / "dist"
_ASSET_TYPES = frozenset({".css", ".gif", ".js", ".png"})

# All URLs in the pages are relative, so that they are right behind a proxy's path prefix.
_UI_PAGE = """\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>Flansible</title>
<link rel="icon" type="image/png" href="docs/favicon-32x32.png">
<link rel="stylesheet" href="docs/index.css">
<link rel="stylesheet" href="docs/swagger-ui.css">
</head>
<body>
<div id="swagger-ui"></div>
<script src="docs/swagger-ui-bundle.js"></script>
<script src="docs/start.js"></script>
</body>
</html>
"""
_UI_START = """\
SwaggerUIBundle({
  url: "openapi.json",
  dom_id: "#swagger-ui",
  deepLinking: true,
  validatorUrl: null,
  // "Try it out" works for who is logged in to the console: a session needs its CSRF token for all but reading.
  requestInterceptor: async (request) => {
    const isOwn = new URL(request.url, location.href).origin === location.origin;
    if (!isOwn || request.headers.Authorization || ["GET", "HEAD"].includes(request.method ?? "GET")) return request;
    const reply = await fetch("session", { headers: { "X-Requested-With": "flansible" } });
    if (reply.ok) request.headers["X-CSRF-Token"] = (await reply.json()).csrf_token;
    return request;
  },
  showMutatedRequest: false, // the curl commands shown: the token is of no use without the cookie
});
"""

# Both pages set inline styles; all scripts are files.
_PAGE_POLICY = security_headers.content_security_policy(
    connect_src="'self'",
    font_src="'self' data:",
    img_src="'self' data:",
    style_src="'self' 'unsafe-inline'",
    script_src="'self'",
)


def register(app: Flask, routes: Sequence[Route]) -> None:
    _register_swagger(app, routes)
    _register_openapi(app, routes)
    rbac = cache(lambda: json.dumps(rbac_schema.schema(), sort_keys=False))
    _get(app, _RBAC_SCHEMA, "api_rbac_schema", lambda: Response(rbac(), mimetype="application/schema+json"))


def _register_swagger(app: Flask, routes: Sequence[Route]) -> None:
    declaration = cache(lambda: swagger12.declaration(routes))
    page = swagger12.page("spec/_/static/")
    scripts = {
        "swagger-ui.js": swagger12.script("spec/_/static/"),
        "start.js": swagger12.start("spec/_/resource_list.json"),
    }
    names = _asset_names(swagger12.ASSETS)

    def spec() -> Response:
        return _uncached_json({**declaration(), "basePath": request.url_root.rstrip("/")})

    def listing() -> Response:
        return _uncached_json(swagger12.listing(request.url_root.rstrip("/") + _SPEC))

    def asset(name: str) -> Response:
        if name in scripts:
            return Response(scripts[name], mimetype="text/javascript")
        return _asset(swagger12.ASSETS, names, name)

    _get(app, _SPEC, "api_spec", spec)
    _get(app, f"{_SPEC}.json", "api_spec", spec)
    _get(app, f"{_SPEC}.html", "api_spec_page", lambda: _page(page))
    _get(app, f"{_SPEC}/_/resource_list.json", "api_spec_listing", listing)
    _get(app, f"{_SPEC}/_/static/<path:name>", "api_spec_asset", asset)


def _register_openapi(app: Flask, routes: Sequence[Route]) -> None:
    document = cache(lambda: json.dumps(openapi31.document(routes), sort_keys=False))
    names = _asset_names(_UI_ASSETS)
    _get(app, _OPENAPI, "api_openapi", lambda: Response(document(), mimetype="application/json"))
    _get(app, _PAGE, "api_docs", lambda: _page(_UI_PAGE))
    _get(app, f"{_PAGE}/", "api_docs_slash", lambda: redirect("../docs", 308))
    _get(app, f"{_PAGE}/start.js", "api_docs_start", lambda: Response(_UI_START, mimetype="text/javascript"))
    _get(app, f"{_PAGE}/<path:name>", "api_docs_asset", lambda name: _asset(_UI_ASSETS, names, name))


def _get(app: Flask, address: str, endpoint: str, view: Callable[..., AnyResponse]) -> None:
    app.add_url_rule(address, endpoint, view, methods=["GET"])


def _uncached_json(document: dict[str, Any]) -> Response:
    """Replies with JSON that contains the URL of this request, so that no cache may keep it for others."""
    response = jsonify(document)
    response.headers["Cache-Control"] = "no-store"
    return response


def _page(text: str) -> Response:
    response = Response(text, mimetype="text/html")
    response.headers["Content-Security-Policy"] = _PAGE_POLICY
    return response


def _asset_names(folder: Path) -> frozenset[str]:
    files = (path for path in folder.rglob("*") if path.suffix in _ASSET_TYPES and path.is_file())
    return frozenset(path.relative_to(folder).as_posix() for path in files)


def _asset(folder: Path, names: frozenset[str], name: str) -> Response:
    """Serves a file of a package, only by exact name from the list made at start: no path comes from the client."""
    if name not in names:
        raise NotFound
    return send_from_directory(folder, name, max_age=3600)
