"""Serves the console's files at `/` and `/console/`: read and compressed once, revalidated by every browser.

The console shows what it reads from the public API. Its Content-Security-Policy lets the page load nothing from
elsewhere and run nothing but these files.
"""

from __future__ import annotations

import gzip
import mimetypes
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from ansi2html import Ansi2HTMLConverter
from flask import Flask, Response, request
from werkzeug.exceptions import NotFound

from flansible.errors import SealError, StoreUnavailable, TooManyRequests
from flansible.web.login.authentication import identify
from flansible.web.middleware import security_headers

_FOLDER = Path(__file__).with_name("console")
_TYPES = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml", ".html": "text/html"}
_POLICY = security_headers.content_security_policy(
    script_src="'self'", style_src="'self'", img_src="'self' data:", connect_src="'self'", manifest_src="'self'"
)
_ANSI = "ansi.css"
_ANONYMOUS_HTML = b'<html data-session="none" '


@dataclass(frozen=True)
class _File:
    body: bytes
    compressed: bytes
    mimetype: str
    etag: str


def register(app: Flask) -> None:
    files = {path.relative_to(_FOLDER).as_posix(): _read(path) for path in _FOLDER.rglob("*") if path.is_file()}
    files[_ANSI] = _file(_ansi_classes().encode(), "text/css")

    anonymous_page = _file(files["index.html"].body.replace(b"<html ", _ANONYMOUS_HTML, 1), "text/html")

    def page() -> Response:
        response = _reply(anonymous_page if _is_anonymous() else files["index.html"])
        response.headers["Content-Security-Policy"] = _POLICY
        response.vary.add("Cookie")
        return response

    def asset(name: str) -> Response:
        if name not in files or name == "index.html":
            raise NotFound
        return _reply(files[name])

    app.add_url_rule("/", "console", page, methods=["GET"])
    app.add_url_rule("/console/<path:name>", "console_file", asset, methods=["GET"])


def _is_anonymous() -> bool:
    """Whether the client is certainly not logged in: then the page need not send a request that is refused."""
    try:
        return identify() is None
    except (StoreUnavailable, SealError, TooManyRequests):
        return False


def _read(path: Path) -> _File:
    return _file(path.read_bytes(), _TYPES.get(path.suffix) or mimetypes.guess_type(path.name)[0] or "text/plain")


def _file(body: bytes, mimetype: str) -> _File:
    return _File(body, gzip.compress(body, 9, mtime=0), mimetype, sha256(body).hexdigest()[:32])


def _reply(file: _File) -> Response:
    is_compressed = request.accept_encodings["gzip"] > 0
    response = Response(file.compressed if is_compressed else file.body, mimetype=file.mimetype)
    response.vary.add("Accept-Encoding")
    if is_compressed:
        response.headers["Content-Encoding"] = "gzip"
    response.set_etag(f"{file.etag}-gzip" if is_compressed else file.etag)
    # Cached, but revalidated each time: after an upgrade no browser mixes old files with new ones.
    response.headers["Cache-Control"] = "no-cache"
    response.make_conditional(request)
    return response


def _ansi_classes() -> str:
    """Returns the CSS classes of the output's `format=fragment`, as the library that writes them defines them."""
    style = Ansi2HTMLConverter(dark_bg=True).produce_headers()
    rules = (line.strip() for line in style.splitlines())
    return "\n".join(rule for rule in rules if rule.startswith(".") and "ansi" in rule and not rule.startswith(".body"))
