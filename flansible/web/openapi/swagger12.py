"""The API as Swagger 1.2, made with flask-restful-swagger from the routes and the pydantic models; its HTML page.

The library builds the document; flansible.web.openapi.views serves it. The library's own views are not used: they keep
each request's Host and X-Forwarded-Proto in a module-global, serve files from outside their folder (`..` below
/api/spec/_/static/), and load scripts from other machines.
"""

from __future__ import annotations

import copy
import json
import re
import threading
import warnings
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from flansible import __version__
from flansible.web.openapi.operations import DocumentedReply, Operation, Schema, operations, schemas
from flansible.web.openapi.swagger12_models import as_class, as_property
from flansible.web.route_types import Route
from flansible.web.serialization import JSON

with warnings.catch_warnings():
    # Its source causes SyntaxWarnings when first compiled: `is not` with a literal, and invalid escapes.
    warnings.simplefilter("ignore")
    from flask_restful_swagger import swagger

ASSETS = Path(str(resources.files("flask_restful_swagger"))) / "static"

_BASIC = "basicAuth"
_DESCRIPTION = "Run Ansible ad-hoc commands and playbooks"
# Links to other hosts, and the page's header: it can load any URL, and two of its buttons do.
_OUTSIDE = re.compile(r"<link href='https?:[^>]*>|<div id='header'>.*?</form>\s*</div>\s*</div>", re.DOTALL)
_INLINE = re.compile(r'<script type="text/javascript">(.*?)</script>', re.DOTALL)
# In the templates: onclick=\"Docs.name('" + a resource + "'); return false;\">
_HANDLER_BEGINS = re.compile(r"""onclick=\\"Docs\.(\w+)\('""")
_HANDLER_ENDS = re.compile(r"""'\);(?: return false;)?\\">""")
_CLICKS = """\
$(document).on("click", "[data-docs]", function (event) {
  Docs[this.getAttribute("data-docs")](this.getAttribute("data-resource"));
  if (this.getAttribute("href") === "#") event.preventDefault();
});
"""

_registry_lock = threading.Lock()


class _DescribeOnly:
    """Stands in for flask-restful's Api: the library registers its views here, and none is served."""

    blueprint = None

    def add_resource(self, resource: type, *urls: str, **options: Any) -> None:
        pass


def declaration(routes: Sequence[Route]) -> dict[str, Any]:
    """Builds the API declaration, without `basePath`, which depends on the request's URL."""
    defined = schemas(routes)
    described = operations(routes)
    queries = {item.route.query.__name__ for item in described if item.route.query}
    with _registry_lock:
        # The registry is process-wide: a second app would describe each route twice, unless it is emptied.
        swagger.registry.clear()
        swagger.registry["models"] = {}
        for name, schema in defined.items():
            if "properties" in schema and name not in queries:
                swagger.model(as_class(name, schema, defined))
        api = swagger.docs(_DescribeOnly(), apiVersion=__version__, resourcePath="/api", description=_DESCRIPTION)
        for item in described:
            swagger.operation(**_attributes(item, defined))(getattr(item.route.resource, item.route.method))
            api.add_resource(item.route.resource, item.route.path)
        found = copy.deepcopy(swagger.registry["app"])
        models = copy.deepcopy(swagger.registry["models"])
        swagger.registry.clear()
    return {
        **{key: found[key] for key in ("apiVersion", "swaggerVersion", "resourcePath", "produces")},
        "authorizations": {_BASIC: {"type": _BASIC}},
        "apis": [_finished(api, item) for api, item in zip(found["apis"], described, strict=True)],
        "models": {name: _without_nulls(model) for name, model in models.items()},
    }


def listing(declaration_url: str) -> dict[str, Any]:
    """Builds the resource listing, which the page loads first."""
    return {
        "apiVersion": __version__,
        "swaggerVersion": "1.2",
        "info": {"title": "Flansible", "description": _DESCRIPTION},
        "authorizations": {_BASIC: {"type": _BASIC}},
        "apis": [{"path": declaration_url, "description": _DESCRIPTION}],
    }


def page(assets_url: str) -> str:
    """Returns the library's page, without what it loads from other hosts, and with its script in a file (`start`).

    assets_url: relative to the page's URL.
    """
    text = _OUTSIDE.sub("", _index())
    text = _INLINE.sub(f'<script src="{assets_url}start.js"></script>', text)
    return text.replace("<title>Swagger UI", "<title>Flansible").replace("{{base_url}}", assets_url)


def start(listing_url: str) -> str:
    """Returns the page's inline script as a file: the Content-Security-Policy forbids inline scripts."""
    found = _INLINE.search(_index())
    assert found is not None, "the library's page has changed"
    # The script resolves a relative URL wrongly; the browser does it right.
    text = found[1].replace('"{{resource_list_url}}"', f'new URL("{listing_url}", window.location.href).href')
    return _CLICKS + text.replace('docExpansion: "none"', 'docExpansion: "list"')


def script(assets_url: str) -> str:
    """Returns `swagger-ui.js`, a template of the library's, with its inline click handlers made data attributes."""
    text = (ASSETS / "swagger-ui.js").read_text(encoding="utf-8").replace("{{base_url}}", assets_url)
    text = _HANDLER_BEGINS.sub(r'data-docs=\\"\1\\" data-resource=\\"', text)
    return _HANDLER_ENDS.sub(r'\\">', text)


def _index() -> str:
    return (ASSETS / "index.html").read_text(encoding="utf-8")


def _finished(api: dict[str, Any], item: Operation) -> dict[str, Any]:
    """Completes what the library cannot express: methods in capitals, authorization, and no nulls."""
    method = item.route.method
    access: dict[str, Any] = {} if item.route.public else {_BASIC: []}
    # The library keeps all methods of a class, of which some may belong to another route.
    own = [operation for operation in api["operations"] if operation["method"] == method]
    api["operations"] = [{**operation, "method": method.upper(), "authorizations": access} for operation in own]
    return _without_nulls(api)


def _without_nulls(found: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in found.items() if value is not None}


def _attributes(item: Operation, defined: dict[str, Schema]) -> dict[str, Any]:
    """Returns what the library does not find in docstrings and URL; it appends the method docstring to `notes`."""
    route = item.route
    found = {
        "nickname": route.endpoint,
        "notes": item.about + ("" if route.public else " Needs a login of rbac.json."),
        "type": route.reply.__name__ if route.reply else "string",
        "parameters": _parameters(item, defined),
        "responseMessages": [_message(reply) for reply in item.replies],
        "produces": list(route.media_types),
    }
    return found | ({"consumes": [JSON]} if route.body else {})


def _parameters(item: Operation, defined: dict[str, Schema]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = [
        {"name": name, "paramType": "path", "type": "string", "required": True, "description": description}
        for name, description in item.parameters.items()
    ]
    if item.route.query:
        model = defined[item.route.query.__name__]
        for name, schema in model["properties"].items():
            required = name in model.get("required", ())
            found.append({"name": name, "paramType": "query", "required": required, **as_property(schema, defined)})
    found += [
        {
            "name": header.name,
            "paramType": "header",
            "type": header.schema["type"],
            "required": False,
            "description": header.description,
        }
        for header in item.route.headers
    ]
    if item.route.body:
        found.append(_body(item.route.body, defined))
    return found


def _body(model: type[BaseModel], defined: dict[str, Schema]) -> dict[str, Any]:
    schema = defined[model.__name__]
    found = {
        "name": "body",
        "paramType": "body",
        "type": model.__name__,
        "required": True,
        "description": schema.get("description", "") + " An unknown field is an error.",
    }
    if "example" in schema:
        found["defaultValue"] = json.dumps(schema["example"], indent=2)
    return found


def _message(reply: DocumentedReply) -> dict[str, Any]:
    found: dict[str, Any] = {"code": reply.status, "message": reply.description}
    if reply.model:
        found["responseModel"] = reply.model.__name__
    return found
