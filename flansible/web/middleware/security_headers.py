"""Headers that keep browsers from being used against us; on every reply, whoever makes it.

Put on by the app after each request, and by flansible.web.gunicorn_server on what gunicorn answers by itself. A page
that needs more than nothing says so in a policy of its own.
"""

from __future__ import annotations

from flask import Flask, Response

# A reply is data. Nothing in it is to be run, shown in a frame, or sent anywhere.
_POLICY = "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
_UNUSED = ("accelerometer", "camera", "geolocation", "gyroscope", "microphone", "payment", "usb")

ALWAYS: tuple[tuple[str, str], ...] = (
    # What a task prints is text to every browser, whatever it looks like.
    ("X-Content-Type-Options", "nosniff"),
    ("Content-Security-Policy", _POLICY),
    ("X-Frame-Options", "DENY"),
    ("Referrer-Policy", "no-referrer"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
    ("Cross-Origin-Opener-Policy", "same-origin"),
    ("Permissions-Policy", ", ".join(f"{feature}=()" for feature in _UNUSED)),
    # No cache keeps an answer that is true for a moment only, and for one user.
    ("Cache-Control", "no-store"),
)
_YEAR_SECONDS = 365 * 24 * 3600
_TLS_ONLY = ("Strict-Transport-Security", f"max-age={_YEAR_SECONDS}")


def always(is_tls: bool) -> tuple[tuple[str, str], ...]:
    """is_tls: this web server speaks TLS itself; then browsers are not to come without it again."""
    return (*ALWAYS, _TLS_ONLY) if is_tls else ALWAYS


def policy(**needs: str) -> str:
    """A page's policy: nothing from anywhere, but for what it names, such as `style_src="'self'"`."""
    first, _, rest = _POLICY.partition("; ")
    return "; ".join((first, *(f"{name.replace('_', '-')} {sources}" for name, sources in needs.items()), rest))


def register(app: Flask, is_tls: bool) -> None:
    headers = always(is_tls)

    def complete(response: Response) -> Response:
        # All at once: `setdefault` for each would take as long again, with every request.
        said = {name for name, _ in response.headers}
        response.headers.extend([header for header in headers if header[0] not in said])
        return response

    app.after_request(complete)
