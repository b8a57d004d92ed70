"""Security headers on every reply, so that browsers run, embed and cache nothing of it.

Added by the app after each request, and by flansible.web.gunicorn_server to gunicorn's own error replies. A page that
needs scripts or styles sets its own Content-Security-Policy (`content_security_policy`).
"""

from __future__ import annotations

from flask import Flask, Response

# A reply is data: nothing in it may be run, shown in a frame, or sent anywhere.
_POLICY = "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
_UNUSED = ("accelerometer", "camera", "geolocation", "gyroscope", "microphone", "payment", "usb")

DEFAULT_HEADERS: tuple[tuple[str, str], ...] = (
    # Output of a task stays text in every browser, even if it looks like HTML.
    ("X-Content-Type-Options", "nosniff"),
    ("Content-Security-Policy", _POLICY),
    ("X-Frame-Options", "DENY"),
    ("Referrer-Policy", "no-referrer"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
    ("Cross-Origin-Opener-Policy", "same-origin"),
    ("Permissions-Policy", ", ".join(f"{feature}=()" for feature in _UNUSED)),
    # A reply is valid for a moment and for one user: no cache may keep it.
    ("Cache-Control", "no-store"),
)
_YEAR_SECONDS = 365 * 24 * 3600
_TLS_ONLY = ("Strict-Transport-Security", f"max-age={_YEAR_SECONDS}")


def default_headers(is_tls: bool) -> tuple[tuple[str, str], ...]:
    """Returns the headers of every reply. is_tls: this server speaks TLS itself, so HSTS is added."""
    return (*DEFAULT_HEADERS, _TLS_ONLY) if is_tls else DEFAULT_HEADERS


def content_security_policy(**needs: str) -> str:
    """Builds the policy of one page: nothing is allowed except what it names, such as `style_src="'self'"`."""
    first, _, rest = _POLICY.partition("; ")
    return "; ".join((first, *(f"{name.replace('_', '-')} {sources}" for name, sources in needs.items()), rest))


def register(app: Flask, is_tls: bool) -> None:
    headers = default_headers(is_tls)

    def complete(response: Response) -> Response:
        # `setdefault` for each header takes 5.6 % more CPU time per status poll (1083 against 1025 us; 2026-11-29,
        # `python -m benchmarks.web_parts`).
        present = {name for name, _ in response.headers}
        response.headers.extend([header for header in headers if header[0] not in present])
        return response

    app.after_request(complete)
