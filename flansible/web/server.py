"""gunicorn, configured from settings: the process behind `flansible web`."""

from __future__ import annotations

from typing import Any

from gunicorn.app.base import BaseApplication

from flansible import passwords
from flansible.config import Settings
from flansible.web import create_app


class _Server(BaseApplication):  # type: ignore[misc]
    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        super().__init__()

    def load_config(self) -> None:
        settings = self._settings
        address = f"[{settings.Flask_tcp_ip}]" if ":" in settings.Flask_tcp_ip else settings.Flask_tcp_ip
        options: dict[str, Any] = {
            "bind": f"{address}:{settings.Flask_tcp_port}",
            "workers": settings.web_workers,
            "threads": settings.web_threads,
            "worker_class": "gthread",
            "proc_name": "flansible-web",
            "graceful_timeout": 3,
            "timeout": 120,
            "keepalive": 30,
            "accesslog": None,
            "loglevel": "warning",
            "control_socket_disable": True,
        }
        for key, value in options.items():
            if key in self.cfg.settings:
                self.cfg.set(key, value)

    def load(self) -> Any:
        # In each process, after the fork: connections and locks must not be shared.
        return create_app(self._settings)


def serve(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT. Raises ConfigurationError before anything listens when rbac.json is wrong."""
    create_app(settings)
    passwords.refuse_default_admin(settings.rbac_file, [settings.Flask_tcp_ip])
    _Server(settings).run()
