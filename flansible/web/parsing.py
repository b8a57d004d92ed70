"""Parses request bodies and query strings into models; every fault becomes an error that names the field."""

from __future__ import annotations

import itertools
import json
import math
from collections import Counter
from collections.abc import Iterable
from typing import Any, NoReturn, TypeVar

from flask import request
from gunicorn.http.errors import ParseException
from pydantic import BaseModel, ConfigDict, ValidationError
from werkzeug.exceptions import RequestEntityTooLarge

from flansible import wording
from flansible.errors import MAX_ERRORS, BodyTooLarge, FieldError, InvalidRequest, UnsupportedMediaType, field_path
from flansible.models import ModuleArgument
from flansible.web.context import web_context

Model = TypeVar("Model", bound=BaseModel)

MAX_NUMBER = 2**53 - 1  # exact in JSON parsers, Lua and Redis
_MAX_DEPTH = 64
# No name of a variable is as long; each error, path and command line below a key repeats it.
_MAX_KEY_CHARACTERS = 1000
# Of more, pydantic's list takes seconds, in which the process answers nobody.
_MOST_FAULTS = 5000
# Of requests that need no login: a password of 65,536 characters fits in. What takes time is for those who have one.
PUBLIC_BODY_BYTES = 512 * 1024


class NoFields(BaseModel):
    """An empty body or query string."""

    model_config = ConfigDict(extra="forbid")


def parse_body(model: type[Model], *, is_public: bool = False) -> Model:
    """Parses the JSON body. Raises InvalidRequest, UnsupportedMediaType or BodyTooLarge. is_public: without a login."""
    return validate(model, parse_object(is_public=is_public))


def parse_object(*, is_public: bool = False) -> dict[str, Any]:
    """Parses the JSON body, an object whose texts can be stored. Raises as `parse_body`."""
    document = _document(is_public)
    errors = list(itertools.islice(_bad_text(document), MAX_ERRORS))
    if errors:
        _refuse(errors)
    return document


def validate(model: type[Model], document: Any, name: str = "") -> Model:
    """Converts a parsed object. Raises InvalidRequest with each field's path.

    name: of the object within the body; without it, it is the body.
    """
    try:
        return model.model_validate(document)
    except ValidationError as error:
        found = _field_errors(error, document, list(model.model_fields))
        if name:
            found = [FieldError(name if one.field == "body" else f"{name}.{one.field}", one.message) for one in found]
        _refuse(found)


def require_no_body() -> None:
    """Requires that there is no body, or an empty JSON object: any page can make a browser send a form.

    Raises InvalidRequest, UnsupportedMediaType or BodyTooLarge.
    """
    if request.content_length or "Transfer-Encoding" in request.headers:
        parse_body(NoFields)


def parse_query(model: type[Model]) -> Model:
    """Parses the query string, with lax types, as all its values are text. Raises InvalidRequest."""
    given = request.args
    twice = [name for name in given if len(given.getlist(name)) > 1]
    if twice:
        _refuse([FieldError(name or "query", "occurs more than once") for name in twice])
    values = given.to_dict()
    if errors := list(_bad_text(values)):
        _refuse(errors)
    try:
        return model.model_validate(values, strict=False)
    except ValidationError as error:
        _refuse(_field_errors(error, values, list(model.model_fields)))


def read_public_body() -> bytes:
    """Reads the raw body of a request that needs no login. Raises as `parse_object`."""
    if request.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise UnsupportedMediaType("Send the body unencoded, without a Content-Encoding.")
    request.max_content_length = min(web_context().settings.max_body_bytes, PUBLIC_BODY_BYTES)
    return _read(request.max_content_length)


def parse_json_object(data: bytes) -> dict[str, Any]:
    """Parses bytes to an object whose texts can be stored. Raises InvalidRequest."""
    document = _parse_json(data)
    errors = list(itertools.islice(_bad_text(document), MAX_ERRORS))
    if errors:
        _refuse(errors)
    return document


def _document(is_public: bool) -> dict[str, Any]:
    if request.mimetype != "application/json":
        got = request.mimetype or "none"
        raise UnsupportedMediaType(f"Send JSON with the header Content-Type: application/json (got: {got}).")
    coding = request.headers.get("Content-Encoding", "identity")
    if coding.lower() != "identity":
        raise UnsupportedMediaType("Send the body unencoded, without a Content-Encoding.")
    most_bytes = web_context().settings.max_body_bytes
    if is_public:
        request.max_content_length = most_bytes = min(most_bytes, PUBLIC_BODY_BYTES)
    return _parse_json(_read(most_bytes))


def _parse_json(data: bytes) -> dict[str, Any]:
    try:
        document = json.loads(
            data.decode("utf-8"),
            parse_constant=_no_constant,
            parse_float=_finite,
            object_pairs_hook=_no_duplicates,
        )
    except RecursionError:
        raise _not_json("is nested too deeply") from None
    except ValueError as error:
        raise _not_json(f"is not JSON: {error}") from None
    if not isinstance(document, dict):
        raise _not_json("must be a JSON object")
    return document


def _read(most_bytes: int) -> bytes:
    """Reads the whole body. Raises BodyTooLarge, and InvalidRequest when it is cut off or its chunks are malformed."""
    try:
        if request.content_length is not None or not request.environ.get("wsgi.input_terminated"):
            return request.get_data(cache=False)
        # Without Content-Length, werkzeug would return what is within the limit and drop the rest silently.
        data: bytes = request.environ["wsgi.input"].read(most_bytes + 1)
        if len(data) <= most_bytes:
            return data
    except RequestEntityTooLarge:
        pass
    except (OSError, ParseException):
        raise InvalidRequest("The body cannot be read: it is cut off, or its chunks are malformed.") from None
    raise BodyTooLarge(f"The body is over the limit of {most_bytes} bytes (max_body_bytes).")


def _not_json(message: str) -> InvalidRequest:
    return InvalidRequest(f"The body {message}", code="invalid_json", errors=[FieldError("body", message)])


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON value")


def _finite(text: str) -> float:
    # Python parses 1e999 as infinity, which JSON cannot represent, so it could not be stored.
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"the number {text[:40]} is too large")
    return number


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        counts = Counter(name for name, _ in pairs)
        twice = min(name for name, count in counts.items() if count > 1)
        raise ValueError(f"an object has the key {twice[:40]!r} twice")
    return result


def _bad_text(value: Any, names: tuple[str | int, ...] = ()) -> Iterable[FieldError]:
    """Yields an error for each string that no command line, path or database can hold, and for each huge key.

    names: where the value is. They are joined only for an error: long keys would be copied for each item.
    """

    def fault(message: str) -> FieldError:
        return FieldError(field_path(names) or "body", message)

    if len(names) > _MAX_DEPTH:
        yield fault(f"is nested deeper than {_MAX_DEPTH} levels")
    elif isinstance(value, str):
        if "\0" in value:
            yield fault("must not contain null bytes")
        elif not _encodable(value):
            yield fault("contains half of a surrogate pair, which is not text")
    elif isinstance(value, dict):
        for key, item in value.items():
            if "\0" in key or not _encodable(key):
                yield fault("has a key that is not text")
            elif len(key) > _MAX_KEY_CHARACTERS:
                yield fault(f"has a key of more than {_MAX_KEY_CHARACTERS} characters, which begins with {key[:40]!r}")
            else:
                yield from _bad_text(item, (*names, key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _bad_text(item, (*names, index))


def _encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _field_errors(error: ValidationError, document: Any, known: list[str]) -> list[FieldError]:
    """Groups pydantic's errors by field: those of a union's branches become one message."""
    if error.error_count() > _MOST_FAULTS:
        return [FieldError("body", f"has {error.error_count()} faults, too many to list them")]
    messages: dict[str, list[str]] = {}
    for item in error.errors(include_url=False, include_context=False)[:MAX_ERRORS]:
        loc = item["loc"]
        # A field of the body that is missing beside others has an error too.
        path = str(loc[0]) if len(loc) == 1 and loc[0] in known else _path(loc, document, item["type"])
        message = wording.plain(item["msg"])
        if item["type"] == "extra_forbidden":
            # The one object within a body that has fields of its own.
            near = wording.nearest(
                str(item["loc"][-1]), known if len(item["loc"]) == 1 else ModuleArgument.model_fields
            )
            message = "unknown field" + (f"; did you mean {near}?" if near else "")
        elif item["type"] == "missing":
            message = "is required"
        found = messages.setdefault(path, [])
        if message not in found:
            found.append(message)
    return [
        FieldError(path, "; or: ".join(found)) for path, found in messages.items() if not _is_other_form(path, messages)
    ]


def _is_other_form(path: str, messages: Iterable[str]) -> bool:
    """Whether an error only says that another form of a field was not given: there are errors within the given one."""
    return any(other.startswith((f"{path}[", f"{path}.")) for other in messages)


def _path(loc: tuple[int | str, ...], document: Any, kind: str) -> str:
    """Converts pydantic's location to a path in the body, without the names of union branches."""
    names: list[str | int] = []
    here = document
    for index, name in enumerate(loc):
        if isinstance(here, dict):
            is_there = name in here
        else:
            is_there = isinstance(here, list) and isinstance(name, int) and name < len(here)
        if is_there:
            here = here[name]
        if is_there or (kind == "missing" and index == len(loc) - 1):
            names.append(name)
    return field_path(names) or "body"


def _refuse(errors: list[FieldError]) -> NoReturn:
    first = errors[0]
    message = (
        f"{first.field}: {first.message}"
        if len(errors) == 1
        else "; ".join(f"{item.field}: {item.message}" for item in errors[:5])
    )
    raise InvalidRequest(message, code="invalid_field", errors=errors)
