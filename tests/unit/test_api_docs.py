"""The API's documentation: complete, correct, the same in both formats, and loaded from this server alone."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args
from urllib.parse import urljoin

import pytest
from flask import Flask
from flask_restful_swagger import swagger as library
from jsonschema import Draft202012Validator
from openapi_spec_validator import validate
from pydantic import BaseModel, ValidationError
from werkzeug.test import TestResponse

import flansible
from flansible import models
from flansible.config import Settings
from flansible.models import ErrorBody
from flansible.models.template_specs import LaunchBody
from flansible.web import create_app, serialization
from flansible.web.openapi import operations
from flansible.web.route_types import Route
from flansible.web.routes import ROUTES

Get = Callable[..., TestResponse]

PRIMITIVES = {"integer", "number", "string", "boolean", "array", "object"}
DOCUMENTS = ("/api/spec", "/api/spec.json", "/api/spec/_/resource_list.json", "/api/openapi.json")
PAGES = ("/api/spec.html", "/api/docs")
MARKER = b"def _get_current_registry"
each_route = pytest.mark.parametrize("route", ROUTES, ids=lambda route: route.endpoint)


@pytest.fixture(scope="module")
def new_app(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Flask]:
    folder = tmp_path_factory.mktemp("docs")
    users = {"rbac": [{"user": "admin", "password": "secret", "inventories": []}]}
    (folder / "rbac.json").write_text(json.dumps(users), encoding="utf-8")
    nowhere = f"redis+socket://{folder}/nobody-listens"
    values: dict[str, Any] = {"CELERY_BROKER_URL": nowhere, "CELERY_RESULT_BACKEND": nowhere, "base_dir": folder}
    settings = Settings(**values, rbac_file=folder / "rbac.json")
    return lambda: create_app(settings)


@pytest.fixture(scope="module")
def app(new_app: Callable[[], Flask]) -> Flask:
    return new_app()


@pytest.fixture(scope="module")
def get(app: Flask) -> Get:
    """GET without a login; replies are read whole, so that files are closed."""
    return lambda address, **options: app.test_client().get(address, buffered=True, **options)


@pytest.fixture(scope="module")
def openapi(get: Get) -> dict[str, Any]:
    found: dict[str, Any] = get("/api/openapi.json").get_json()
    return found


@pytest.fixture(scope="module")
def spec(get: Get) -> dict[str, Any]:
    found: dict[str, Any] = get("/api/spec").get_json()
    return found


def path_of(route: Route) -> str:
    return re.sub(r"<\w+:(\w+)>", r"{\1}", route.path)


def in_openapi(document: dict[str, Any], route: Route) -> dict[str, Any]:
    """An operation, with the replies that it shares with others."""
    found: dict[str, Any] = document["paths"][path_of(route)][route.method]
    shared = document["components"]["responses"]
    replies = {
        status: shared[reply["$ref"].rpartition("/")[2]] if "$ref" in reply else reply
        for status, reply in found["responses"].items()
    }
    return {**found, "responses": replies}


def in_spec(document: dict[str, Any], route: Route) -> dict[str, Any]:
    [found] = [
        operation
        for api in document["apis"]
        if api["path"] == path_of(route)
        for operation in api["operations"]
        if operation["method"] == route.method.upper()
    ]
    operation: dict[str, Any] = found
    return operation


def mentioned_models() -> set[type[BaseModel]]:
    """Returns every model that a request or a reply can contain."""
    found: set[type[BaseModel]] = set()

    def add(annotation: Any) -> None:
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            if annotation not in found:
                found.add(annotation)
                for field in annotation.model_fields.values():
                    add(field.annotation)
        for argument in get_args(annotation):
            add(argument)

    for model in (ErrorBody, *(route.body for route in ROUTES), *(route.reply for route in ROUTES)):
        add(model)
    return found


def resolved(document: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    return {**schema, "components": document["components"]}


def test_the_openapi_document_is_valid(openapi: dict[str, Any]) -> None:
    validate(openapi)
    assert openapi["openapi"].startswith("3.1.")
    assert openapi["info"]["version"] == flansible.__version__


@each_route
def test_each_route_is_in_both_documents(route: Route, openapi: dict[str, Any], spec: dict[str, Any]) -> None:
    new, old = in_openapi(openapi, route), in_spec(spec, route)
    assert new["operationId"] == old["nickname"] == route.endpoint
    assert new["summary"] == old["summary"] != ""
    assert new["description"] and old["notes"].startswith(new["description"].partition("\n")[0])
    assert new["tags"][0] in {tag["name"] for tag in openapi["tags"]}


def test_neither_document_has_a_route_too_many(openapi: dict[str, Any], spec: dict[str, Any]) -> None:
    assert set(openapi["paths"]) == {path_of(route) for route in ROUTES} == {api["path"] for api in spec["apis"]}
    assert len(spec["apis"]) == len(ROUTES)


def test_each_field_of_each_model_is_in_both_documents_with_its_description(
    openapi: dict[str, Any], spec: dict[str, Any]
) -> None:
    found = mentioned_models()
    assert {models.AdhocRequest, models.ModuleArgument, models.PlayTaskResult, models.ErrorItem} <= found
    for model in found:
        new = openapi["components"]["schemas"][model.__name__]["properties"]
        old = spec["models"][model.__name__]["properties"]
        fields = {field.alias or name: field for name, field in model.model_fields.items()}
        assert list(new) == list(old) == list(fields), model
        for name, field in fields.items():
            assert field.description and new[name]["description"] == field.description, f"{model}.{name}"
            assert old[name]["description"].startswith(field.description), f"{model}.{name}"


@each_route
def test_bodies_and_replies_are_the_routes_models(route: Route, openapi: dict[str, Any], spec: dict[str, Any]) -> None:
    new, old = in_openapi(openapi, route), in_spec(spec, route)
    content = new["responses"][str(route.status)].get("content", {})
    assert list(content) == old["produces"] == list(route.media_types)
    assert ("application/json" in content) == (route.reply is not None)
    assert old["type"] == (route.reply.__name__ if route.reply else "string")
    for media_type, reply in content.items():
        is_json = media_type == "application/json"
        assert reply["schema"] == ({"$ref": f"#/components/schemas/{old['type']}"} if is_json else {"type": "string"})
    bodies = [parameter["type"] for parameter in old["parameters"] if parameter["paramType"] == "body"]
    if route.body:
        schema = new["requestBody"]["content"]["application/json"]["schema"]
        assert schema == {"$ref": f"#/components/schemas/{route.body.__name__}"} and new["requestBody"]["required"]
        assert bodies == [route.body.__name__] and old["consumes"] == ["application/json"]
    else:
        assert "requestBody" not in new and bodies == []


@each_route
def test_path_query_and_header_parameters_are_in_both_documents(
    route: Route, openapi: dict[str, Any], spec: dict[str, Any]
) -> None:
    expected = {(name, "path", True) for name in re.findall(r"{(\w+)}", path_of(route))}
    for name, field in (route.query.model_fields if route.query else {}).items():
        expected.add((field.alias or name, "query", field.is_required()))
    expected |= {(header.name, "header", False) for header in route.headers}
    new = in_openapi(openapi, route).get("parameters", [])
    old = [parameter for parameter in in_spec(spec, route)["parameters"] if parameter["paramType"] != "body"]
    assert {(item["name"], item["in"], item["required"]) for item in new} == expected
    assert {(item["name"], item["paramType"], item["required"]) for item in old} == expected
    assert all(item["description"] for item in (*new, *old))


@each_route
def test_every_status_is_documented_and_errors_have_the_one_shape(
    route: Route, openapi: dict[str, Any], spec: dict[str, Any]
) -> None:
    errors = {400, 408, 414, 431, 500, *route.errors} | (set() if route.public else {401, 429})
    if route.method == "post":
        errors |= {403}  # a token for reading only
    others = {route.other[0]: route.other[1].__name__} if route.other else {}
    new = in_openapi(openapi, route)["responses"]
    old = {message["code"]: message for message in in_spec(spec, route)["responseMessages"]}
    assert {int(status) for status in new} == set(old) == {route.status, *route.also, *others, *route.empty} | errors
    for status in route.empty:
        assert "content" not in new[str(status)] and "responseModel" not in old[status] and old[status]["message"]
    for status, model in others.items():
        assert new[str(status)]["content"]["application/json"]["schema"] == {"$ref": f"#/components/schemas/{model}"}
        assert old[status]["responseModel"] == model
    for status in errors:
        schema = new[str(status)]["content"]["application/json"]["schema"]
        assert schema == {"$ref": "#/components/schemas/ErrorBody"}
        assert old[status]["responseModel"] == "ErrorBody" and old[status]["message"]
    for status, header in ((401, "WWW-Authenticate"), (429, "Retry-After"), (503, "Retry-After")):
        assert str(status) not in new or header in new[str(status)]["headers"]
    expected = [*(header.name for header in route.reply_headers), "X-Request-ID"]
    assert list(new[str(route.status)]["headers"]) == expected
    assert all("X-Request-ID" in answer["headers"] for answer in new.values())
    assert ("Location" in new[str(route.status)].get("headers", {})) == (route.reply is models.Accepted)
    pages = {"next_before", "next_after"} & set(route.reply.model_fields if route.reply else ())
    assert ("Link" in new[str(route.status)].get("headers", {})) == bool(pages)


def test_what_starts_a_run_of_a_project_has_502_and_503(openapi: dict[str, Any]) -> None:
    """A worker asks the remote for the commit, before anything is queued."""
    for path in (
        *("/api/ansiblecommand", "/api/ansibleplaybook", "/api/templates/{name}/launch", "/api/schedules/{name}/run"),
        *("/api/hooks/{name}", "/api/hookcalls/{call_id}/again", "/api/preview", "/api/projects/{name}/remote"),
    ):
        assert {"502", "503"} <= openapi["paths"][path]["post"]["responses"].keys(), path


@each_route
def test_private_routes_ask_for_a_login_and_public_ones_do_not(
    route: Route, openapi: dict[str, Any], spec: dict[str, Any]
) -> None:
    assert in_openapi(openapi, route)["security"] == ([] if route.public else [{"basic": []}, {"token": []}])
    assert in_spec(spec, route)["authorizations"] == ({} if route.public else {"basicAuth": []})
    schemes = openapi["components"]["securitySchemes"]
    assert [(name, scheme["scheme"]) for name, scheme in schemes.items()] == [("basic", "basic"), ("token", "bearer")]


def test_no_refusal_stands_in_the_document_twice(openapi: dict[str, Any]) -> None:
    """A page with all operations is drawn from it: with them it was 780 kB, and took ten seconds on a busy machine."""
    seen = [
        json.dumps((status, reply))
        for path in openapi["paths"].values()
        for operation in path.values()
        for status, reply in operation["responses"].items()
        if int(status) >= 400 and "$ref" not in reply
    ]
    seen += [json.dumps(reply) for reply in openapi["components"]["responses"].values()]
    assert len(seen) == len(set(seen))
    assert len(json.dumps(openapi)) < 450_000


def test_operation_ids_are_unique(openapi: dict[str, Any]) -> None:
    found = [operation["operationId"] for path in openapi["paths"].values() for operation in path.values()]
    assert len(found) == len(set(found)) == len(ROUTES)


@each_route
def test_examples_are_what_the_api_takes_and_gives(route: Route, openapi: dict[str, Any], spec: dict[str, Any]) -> None:
    operation = in_openapi(openapi, route)
    if route.body:
        content = operation["requestBody"]["content"]["application/json"]
        route.body.model_validate(content["example"])
        [body] = [item for item in in_spec(spec, route)["parameters"] if item["paramType"] == "body"]
        assert json.loads(body["defaultValue"]) == content["example"]
    for status, response in operation["responses"].items():
        for content in response.get("content", {}).values():
            assert content["examples"], f"{status} has no example"
            for example in content["examples"].values():
                Draft202012Validator(resolved(openapi, content["schema"])).validate(example["value"])


def test_the_example_of_a_session_has_the_rights_of_its_user(openapi: dict[str, Any]) -> None:
    content = openapi["paths"]["/api/session"]["get"]["responses"]["200"]["content"]["application/json"]
    [session] = [example["value"] for example in content["examples"].values()]
    for right in ("sees_all", "may_act", "may_become", "may_use_git"):
        assert session[right] or not session["is_admin"], right


def test_a_field_that_replies_may_leave_out_is_not_required_and_never_null(openapi: dict[str, Any]) -> None:
    for model, names in serialization.OMITTED_WHEN_NULL.items():
        schema = openapi["components"]["schemas"][model.__name__]
        assert names and set(schema["required"]) == model.model_fields.keys() - names
        for name in names:
            assert "null" not in json.dumps(schema["properties"][name]), name
    assert openapi["components"]["schemas"]["TaskStatus"]["required"][4:7] == ["returncode", "changed", "user"]


def test_an_example_of_a_stream_is_one(openapi: dict[str, Any]) -> None:
    content = openapi["paths"]["/api/ansibletaskevents/{task_id}"]["get"]["responses"]["200"]["content"]
    opening, *messages, end = content["text/event-stream"]["examples"]["reply"]["value"].split("\n\n")
    assert (opening, end) == ("retry: 1000", "")
    page = models.EventPage.model_validate(content["application/json"]["examples"]["reply"]["value"])
    for message, event in zip(messages, page.events, strict=True):
        assert message.startswith(f"id: {event.seq}\nevent: {event.event}\ndata: ")
        assert models.Event.model_validate_json(message.partition("data: ")[2]) == event


@pytest.mark.parametrize(
    "body",
    [
        {"module": "ping", "modul": "ping"},
        {"module": 1},
        {"module": "ping", "forks": 0},
        {"module": "ping", "verbose_level": 7},
        {"module": "ping", "become": "false"},
        {"module": "ping", "module_args": 1},
        {},
    ],
)
def test_what_the_api_refuses_the_schema_refuses(body: dict[str, Any], openapi: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        models.AdhocRequest.model_validate(body)
    schema = resolved(openapi, {"$ref": "#/components/schemas/AdhocRequest"})
    assert not Draft202012Validator(schema).is_valid(body)


def test_unknown_fields_are_seen_to_be_errors(openapi: dict[str, Any], spec: dict[str, Any]) -> None:
    # What a launch may set, each template says.
    for model in mentioned_models() - {LaunchBody}:
        assert openapi["components"]["schemas"][model.__name__]["additionalProperties"] is False
    for route in ROUTES:
        for parameter in in_spec(spec, route)["parameters"]:
            assert parameter["paramType"] != "body" or "unknown field is an error" in parameter["description"]


def test_swagger_types_are_primitives_or_its_own_models(spec: dict[str, Any]) -> None:
    known = PRIMITIVES | set(spec["models"])
    fields = [(model["id"], *field) for model in spec["models"].values() for field in model["properties"].items()]
    for model, name, field in fields:
        assert field["type"] in known, f"{model}.{name}"
        if field["type"] == "array":
            [(key, item)] = field["items"].items()
            assert item in (spec["models"] if key == "$ref" else PRIMITIVES), f"{model}.{name}"
    properties = spec["models"]["AdhocRequest"]["properties"]
    assert spec["models"]["AdhocRequest"]["required"] == ["module"]
    assert (properties["verbose_level"]["minimum"], properties["verbose_level"]["maximum"]) == ("0", "6")
    assert properties["module_args"]["description"].endswith("(object or string or array of ModuleArgument)")
    assert "queued" in spec["models"]["TaskStatus"]["properties"]["state"]["enum"]
    assert spec["models"]["TaskList"]["properties"]["tasks"]["items"] == {"$ref": "TaskStatus"}


def test_the_swagger_document_is_what_the_version_says(get: Get, spec: dict[str, Any]) -> None:
    listing = get("/api/spec/_/resource_list.json").get_json()
    for document in (spec, listing):
        assert (document["swaggerVersion"], document["apiVersion"]) == ("1.2", flansible.__version__)
    assert [api["path"] for api in listing["apis"]] == ["http://localhost/api/spec"]
    assert not re.search(r'[:,\[] null|"null"', json.dumps(spec))


def test_making_the_app_again_duplicates_nothing(new_app: Callable[[], Flask]) -> None:
    found = []
    for app in (new_app(), new_app()):
        with app.test_client() as client:
            found.append([client.get(address).get_json() for address in DOCUMENTS])
    assert found[0] == found[1]
    assert library.registry == {}


def test_the_address_in_the_document_is_that_of_each_request_alone(get: Get) -> None:
    forged = {"X-Forwarded-Proto": "javascript:alert(1)//", "X-Forwarded-Host": "evil.example"}
    for base in ("http://one.example", "https://two.example:8443", "http://one.example/prefix"):
        for _ in range(2):
            reply = get("/api/spec", base_url=base, headers=forged)
            assert reply.get_json()["basePath"] == base
            assert reply.headers["Cache-Control"] == "no-store"
    listing = get("/api/spec/_/resource_list.json", base_url="http://one.example/prefix").get_json()
    assert listing["apis"][0]["path"] == "http://one.example/prefix/api/spec"


def test_pages_do_not_repeat_anything_of_the_request(get: Get) -> None:
    for page in PAGES:
        plain = get(page)
        told = get(page, base_url="http://evil.example", headers={"X-Forwarded-Proto": "evil"}, query_string="evil")
        assert plain.status_code == told.status_code == 200
        assert plain.data == told.data


@pytest.mark.parametrize("page", PAGES)
def test_a_page_and_all_it_loads_come_from_here(page: str, get: Get) -> None:
    reply = get(page)
    assert reply.mimetype == "text/html"
    links = re.findall(r"(?:src|href)=['\"]([^'\"]*)['\"]", reply.text)
    assert len(links) >= 4
    assert "http" not in reply.text and "//" not in "".join(links)
    types = {".js": "text/javascript", ".css": "text/css", ".png": "image/png", ".gif": "image/gif"}
    for link in links:
        asset = get(urljoin(page, link))
        assert (asset.status_code, asset.mimetype) == (200, types[Path(link).suffix]), link
        if asset.mimetype == "text/css":
            loaded = re.findall(r"url\(['\"]?([^'\")]*)", asset.text)
            assert "@import" not in asset.text
            assert all(address.startswith(("data:", "../images/")) for address in loaded), link


@pytest.mark.parametrize("page", PAGES)
def test_browsers_are_told_to_load_nothing_from_outside(page: str, get: Get) -> None:
    policy = get(page).headers["Content-Security-Policy"]
    sources = set(policy.replace(";", " ").split()) - {"'none'", "'self'", "'unsafe-inline'", "data:"}
    assert policy.startswith("default-src 'none'; connect-src 'self'; ")
    assert all(re.fullmatch(r"[a-z]+(-[a-z]+)*", source) for source in sources), sources


def test_swagger_ui_reads_our_document_and_no_validator(get: Get) -> None:
    start = get("/api/docs/start.js").text
    assert 'url: "openapi.json"' in start and "validatorUrl: null" in start
    assert "http" not in start
    policy = get("/api/docs").headers["Content-Security-Policy"]
    assert "script-src 'self';" in policy


def test_the_old_page_starts_from_our_listing_and_opens_its_list(get: Get) -> None:
    page, start = get("/api/spec.html").text, get("/api/spec/_/static/start.js").text
    assert "{{" not in page + start and "petstore" not in page and "input_baseUrl" not in page
    assert 'new URL("spec/_/resource_list.json", window.location.href).href' in start
    assert 'docExpansion: "list"' in start
    assert "{{" not in get("/api/spec/_/static/swagger-ui.js").text


@pytest.mark.parametrize("page", PAGES)
def test_no_script_stands_in_a_page(page: str, get: Get) -> None:
    reply = get(page)
    assert "script-src 'self';" in reply.headers["Content-Security-Policy"]
    assert re.findall(r"<script(?![^>]*src=)[^>]*>", reply.text) == []
    assert not re.search(r"\bon[a-z]+=", reply.text)


def test_the_old_page_s_handlers_are_attributes_that_one_script_reads(get: Get) -> None:
    script = get("/api/spec/_/static/swagger-ui.js").text
    assert "onclick" not in script
    assert script.count("data-docs=") == script.count("data-resource=") == 4
    assert "[data-docs]" in get("/api/spec/_/static/start.js").text


def test_the_address_with_a_slash_leads_to_the_page(get: Get) -> None:
    reply = get("/api/docs/", base_url="http://localhost/prefix")
    assert (reply.status_code, reply.headers["Location"]) == (308, "../docs")


@pytest.mark.parametrize("folder", ["/api/spec/_/static/", "/api/docs/"])
@pytest.mark.parametrize(
    "name",
    [
        "../swagger.py",
        "../../flask_restful_swagger/swagger.py",
        "%2e%2e/swagger.py",
        "..%2fswagger.py",
        "..%2f..%2fflask_restful_swagger%2fswagger.py",
        "css/../../swagger.py",
        "css/..%2f..%2fswagger.py",
        "..%5cswagger.py",
        "%2fetc/passwd",
        "//etc/passwd",
        "swagger-ui.js%00.css",
        "%ff",
        "index.html",
        "o2c.html",
        "missing.js",
        "css",
    ],
)
def test_nothing_but_a_page_s_files_is_handed_out(folder: str, name: str, app: Flask) -> None:
    reply = raw_get(app, folder + name)
    assert reply.status_code == 404
    assert MARKER not in reply.data and b"root:" not in reply.data
    assert ErrorBody.model_validate(reply.get_json()).code == "not_found"


def raw_get(app: Flask, target: str) -> TestResponse:
    """Sends a request whose path arrives as a server passes it on: decoded, with its dots."""
    decoded = re.sub(rb"%([0-9a-f]{2})", lambda found: bytes.fromhex(found[1].decode()), target.encode())
    with app.test_client() as client:
        return client.open("/", environ_overrides={"PATH_INFO": decoded.decode("latin-1")}, buffered=True)


def test_the_library_s_own_view_would_hand_it_out() -> None:
    """If this ever fails, the library has been fixed, and its own view can be used."""
    app = Flask("hazard", static_folder=None)
    app.add_url_rule("/static/<dir1>/<dir2>", "static", library.StaticFiles().get)
    library.registry["app"] = {"spec_endpoint_path": "/api/spec"}
    try:
        assert MARKER in raw_get(app, "/static/../swagger.py").data
    finally:
        library.registry.clear()


@pytest.mark.parametrize("address", [*DOCUMENTS, *PAGES, "/api/docs/start.js", "/api/docs/swagger-ui.css"])
def test_the_documentation_is_read_only(address: str, app: Flask) -> None:
    with app.test_client() as client:
        assert client.get(address, buffered=True).status_code == 200
        for method in ("POST", "PUT", "PATCH", "DELETE"):
            reply = client.open(address, method=method)
            assert reply.status_code == 405
            assert ErrorBody.model_validate(reply.get_json()).code == "method_not_allowed"


@each_route
def test_the_library_s_help_addresses_are_not_served(route: Route, get: Get) -> None:
    for suffix in (".help.json", ".help.html"):
        reply = get(path_of(route) + suffix)
        assert reply.status_code in (401, 404, 405) and ErrorBody.model_validate(reply.get_json())


def test_documenting_a_route_leaves_its_answers_alone(app: Flask) -> None:
    with app.test_client() as client:
        for route in ROUTES:
            if not route.public:
                reply = client.open(path_of(route).replace("{task_id}", "x"), method=route.method.upper())
                assert (reply.status_code, reply.get_json()["code"]) == (401, "not_authenticated")


def test_each_route_has_a_docstring_of_its_own() -> None:
    for item in operations.operations(ROUTES):
        assert item.route.resource.__doc__ and item.summary and not item.summary.endswith("."), item.path


def test_importing_the_library_for_the_first_time_warns_of_nothing(tmp_path: Path) -> None:
    code = (
        "import sys, warnings, celery, flask_restful, flask_httpauth, gunicorn.app.base, kombu, pydantic, redis, yaml; "
    )
    code += f"sys.pycache_prefix = {str(tmp_path)!r}; "  # what follows is compiled anew
    code += "warnings.simplefilter('error', SyntaxWarning); import flansible.web.openapi.swagger12"
    environ = {**os.environ, "PYTHONDONTWRITEBYTECODE": ""}
    result = subprocess.run([sys.executable, "-c", code], env=environ, capture_output=True, text=True, timeout=120)
    assert (result.returncode, result.stderr) == (0, "")
    assert list(tmp_path.rglob("flask_restful_swagger/swagger.*.pyc"))
