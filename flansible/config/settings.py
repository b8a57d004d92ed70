"""Every setting once, with its type, default and help; flansible.config.loading reads their values.

A test holds docs/configuration.md's table to the fields below.
"""

from __future__ import annotations

import ipaddress
import os
import re
import tempfile
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from flansible.config import values as setting_values
from flansible.config.values import EMBEDDED as EMBEDDED
from flansible.config.values import ListenAddress, Network, Port, comma_list

_MAX_SOCKET_PATH_BYTES = 100  # sun_path holds 108
_MAX_MASTERS_PATH_BYTES = 56  # what ssh_masters and ssh append to it is up to 50 bytes
# ssh and Ansible expand ~ $ and % in the path of a master's socket, and take quotes and spaces apart.
_PLAIN_PATH = re.compile(r"[\w./+,:@-]+", re.ASCII)


class Settings(BaseModel):
    """The configuration of one process. Paths are absolute; `base_dir` is the folder relative ones counted from."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    CELERY_BROKER_URL: Annotated[str, AfterValidator(setting_values.broker_url)] = Field(
        EMBEDDED, description="Broker: `embedded`, `redis://`, `rediss://`, `redis+socket://` or `amqp://`."
    )
    CELERY_RESULT_BACKEND: Annotated[str, AfterValidator(setting_values.store_url)] = Field(
        EMBEDDED, description="Records (always Redis): `embedded`, `redis://`, `rediss://` or `redis+socket://`."
    )
    DATABASE_URL: Annotated[str, AfterValidator(setting_values.database_url)] = Field(
        EMBEDDED,
        description="History of finished tasks: `embedded` (a SQLite file in `data_dir`; only with an embedded Redis) "
        "or `postgresql+psycopg://`.",
    )
    CELERY_TASK_TIMEOUT: int = Field(
        86400, ge=1, description="Seconds a run may take; then it is ended as `timed_out`."
    )
    Flask_tcp_ip: ListenAddress = Field("127.0.0.1", description="Address the web server listens on.")
    Flask_tcp_port: Port = Field(3000, description="Port the web server listens on.")
    tls_certificate: Path | None = Field(
        None,
        description="Certificate with its chain, in PEM form; with `tls_key` it turns on TLS in the web server.",
    )
    tls_key: Path | None = Field(None, description="Key of that certificate, without a password.")
    trusted_proxies: Annotated[str, AfterValidator(setting_values.networks)] = Field(
        "",
        description="Proxies whose X-Forwarded-For, -Proto and -Host headers are trusted: addresses or networks, "
        "separated by commas. Empty: none.",
    )
    playbook_root: Path = Field(
        Path("playbooks"),
        description="Folder of playbooks. Users other than admin can run playbooks only from here; "
        "it is the base of a relative `playbook_dir` and the directory of ad-hoc commands.",
    )
    playbook_filter: Annotated[str, AfterValidator(setting_values.regular_expression)] = Field(
        r"\.ya?ml$",
        description="Regular expression that the path below `playbook_root` of a listed playbook must contain.",
    )
    rbac_file: Path = Field(Path("rbac.json"), description="Users and their rights.")
    data_dir: Path = Field(Path(".flansible"), description="Folder for the embedded Redis and for sockets, mode 0700.")
    default_inventory: str | None = Field(
        None, description="Inventory of requests that name none. Unset: Ansible's default."
    )
    environment_names: str = Field(
        "", description="Environment variables that users other than admin may set for a run, separated by commas."
    )
    secret_key_file: Path = Field(
        Path(".flansible/secret.key"),
        description="Key that encrypts secrets while they wait for their run; created when first needed. "
        "Web servers and workers on several machines need the same one.",
    )
    token_file: Path = Field(Path(".flansible/tokens.json"), description="API tokens, hashed: see `flansible token`.")
    login_function: Annotated[str, AfterValidator(setting_values.function)] = Field(
        "", description="`package.module:function` that may identify the user from the headers of a request."
    )
    secret_function: Annotated[str, AfterValidator(setting_values.function)] = Field(
        "", description="`package.module:function` that fetches the secrets of credentials with a `source`."
    )
    login_failures: int = Field(
        10,
        ge=0,
        description="Wrong passwords allowed for one user from one address within five minutes; above it 429. Five "
        "times as many for one user from anywhere, ten times as many from one address. 0: any number.",
    )
    session_hours: int = Field(
        12, ge=1, le=168, description="Hours after which an unused login of the console expires; a week at most."
    )
    audit_file: Path = Field(
        Path(".flansible/audit.log"), description="Audit log, one JSON line for each action: see `flansible audit`."
    )
    audit_stdout: bool = Field(
        True,
        description="Write the audit log to the web server's standard output as well. `flansible up` shows it on a "
        "terminal only where this is set.",
    )
    worker_concurrency: int = Field(8, ge=1, le=1000, description="Runs that one worker executes at the same time.")
    worker_queues: Annotated[str, AfterValidator(setting_values.queue_names)] = Field(
        "default",
        description="Queues whose tasks a worker runs, separated by commas, those first from which it takes first.",
    )
    cors_origins: Annotated[str, AfterValidator(setting_values.origins)] = Field(
        "",
        description="Origins whose pages may use the API from a browser, such as `https://console.example.org`, "
        "separated by commas. Empty: none.",
    )
    web_workers: int = Field(2, ge=1, le=64, description="Processes of the web server.")
    web_threads: int = Field(16, ge=1, le=256, description="Threads of each web process.")
    max_connections_per_address: int = Field(
        100,
        ge=0,
        description="Connections that one address may have to each web process, without followers; above it 429. Of a "
        "trusted proxy, each client is counted that it names. 0: any number.",
    )
    max_followers_per_user: int = Field(
        200,
        ge=0,
        description="Replies that one user may follow in each web process, of 1,000 in all; above it 429. 0: any "
        "number.",
    )
    max_followers_per_address: int = Field(
        400, ge=0, description="Replies that one address may follow in each web process; above it 429. 0: any number."
    )
    max_body_bytes: int = Field(4 * 1024 * 1024, ge=1024, description="Largest request body in bytes; above it 413.")
    grace_seconds: float = Field(
        5.0, ge=0, le=300, description="Seconds between TERM and KILL when a run is terminated."
    )
    lease_seconds: int = Field(
        60,
        ge=15,
        le=3600,
        description="Seconds after which a run is lost whose worker is silent. If the worker lives it ends the run "
        "before that; until then no other run of the task starts.",
    )
    drain_seconds: float = Field(
        2.0,
        ge=0,
        le=86400,
        description="Seconds a stopping worker waits for its runs before it ends them.",
    )
    fork_servers: int = Field(
        100,
        ge=1,
        le=1000,
        description="Warm Ansible processes kept per worker, one for each combination of Ansible configuration and "
        "confined user: some 10 MB each, fewer when memory is short.",
    )
    projects_bytes: int = Field(
        5 * 1024**3,
        ge=0,
        description="Bytes of trees and requirements of projects that a worker keeps in `data_dir`; above it those are "
        "removed that no run uses, the longest unused first.",
    )
    projects_days: int = Field(
        30, ge=1, le=36500, description="Days a worker keeps a tree of a project that no run uses."
    )
    mirrors_bytes: int = Field(
        20 * 1024**3,
        ge=0,
        description="Bytes of mirrors of projects' repositories that a worker keeps in `data_dir`; above it those are "
        "removed that nobody uses, the longest unused first. They are fetched again when needed.",
    )
    project_hosts: str = Field(
        "",
        description="Hosts of which users other than admin may define projects although their addresses are those of "
        "this machine or of private networks, separated by commas; `*.example.org` is all below it. Empty: none.",
    )
    isolation: Literal["auto", "bwrap", "none"] = Field(
        "auto",
        description="Runs of users other than admin: `bwrap` confines them with bubblewrap, and the service does not "
        "start without it; `auto` without it refuses runs that could reach this machine; `none` confines nothing.",
    )
    sandbox_paths: str = Field(
        "",
        description="More files and folders that all confined runs may read, separated by commas, such as those that "
        "inventory scripts and plugins need.",
    )
    hidden_paths: str = Field(
        "inventories, inventory, environments, */inventories, */inventory, */environments",
        description="Paths below `playbook_root` that are hidden from confined runs, except their own inventories: "
        "patterns, separated by commas, at most two levels deep.",
    )
    ssh_profile: Literal["default", "fast"] = Field(
        "default",
        description="`fast`: ssh uses pipelining and keeps connections for the same user's next runs, unless "
        "configured otherwise. `default`: only Ansible's own configuration counts.",
    )
    allow_untested_ansible: bool = Field(
        False,
        description="Start with an untested version of ansible-core; its text and exit codes may differ.",
    )
    max_output_bytes: int = Field(
        256 * 1024 * 1024,
        ge=1024,
        description="Bytes of output kept for one task, and of results; the run continues beyond that, and the last "
        "line of the output says so.",
    )
    max_running_per_user: int = Field(
        0, ge=0, description="Runs a user may have at the same time; more wait in the queue. 0: any number."
    )
    max_queued_per_user: int = Field(0, ge=0, description="Queued tasks a user may have; above it 429. 0: any number.")
    archive_after_seconds: float = Field(
        30.0, ge=0, le=86400, description="Seconds after its end when a task moves from Redis to the history database."
    )
    retention_days: int | None = Field(
        None,
        ge=1,
        le=36500,
        description="Days a finished task is kept. Unset: 365 in a history database, 30 without one.",
    )
    retention_tasks: int | None = Field(
        None,
        ge=0,
        description="Finished tasks that are kept; above it the oldest are deleted. 0: any number. Unset: any number "
        "in a history database, 200000 without one.",
    )
    retention_bytes: int = Field(
        0,
        ge=0,
        description="Bytes kept for all finished tasks together, compressed in a history database; above it the oldest "
        "are deleted. 0: any number.",
    )
    retention_output_days: int = Field(
        0,
        ge=0,
        le=36500,
        description="Days the output and events of a finished task are kept in a history database; its record stays. "
        "0: as long as that.",
    )
    keep_facts: bool = Field(
        True, description="Keep the facts that runs gather, of each host the latest, in the history database."
    )
    public_url: Annotated[str, AfterValidator(setting_values.base_url)] = Field(
        "",
        description="URL of this service in the links of notifications, such as `https://ansible.example.org`. "
        "Empty: the address that it listens on.",
    )
    callback_hosts: str = Field(
        "",
        description="Hosts that a request's `callback` may name, separated by commas; `*.example.org` is all below it. "
        "Empty: none.",
    )
    callback_private: bool = Field(
        False, description="Whether those hosts may have addresses of this machine and of private networks."
    )
    choices_hosts: str = Field(
        "",
        description="Hosts of URLs that templates may take choices of variables from, separated by commas; "
        "`*.example.org` is all below it. Empty: none.",
    )
    choices_private: bool = Field(
        False, description="Whether those hosts may have addresses of this machine and of private networks."
    )
    metrics: bool = Field(
        False,
        description="Serve `GET /metrics` for Prometheus; with `metrics_token_file`, `metrics_addresses` or both.",
    )
    metrics_token_file: Path | None = Field(
        None, description="File with the token that reads the metrics, of 16 characters or more."
    )
    metrics_addresses: Annotated[str, AfterValidator(setting_values.networks)] = Field(
        "",
        description="Addresses or networks that may read the metrics without the token, separated by commas. "
        "Empty: none.",
    )
    flower_tcp_ip: ListenAddress = Field("127.0.0.1", description="Address Flower listens on.")
    flower_tcp_port: Port = Field(5555, description="Port Flower listens on.")

    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "warning", description="Lowest level of the messages that the processes write to standard error."
    )

    base_dir: Path = Field(default_factory=Path.cwd, exclude=True)
    config_file: Path | None = Field(None, exclude=True)

    @model_validator(mode="after")
    def _require_certificate_with_key(self) -> Self:
        if (self.tls_certificate is None) != (self.tls_key is None):
            raise ValueError("tls_certificate and tls_key belong together: set both or neither")
        return self

    @model_validator(mode="after")
    def _require_readers_of_metrics(self) -> Self:
        if self.metrics and not (self.metrics_token_file or comma_list(self.metrics_addresses)):
            raise ValueError("metrics = true needs metrics_token_file, metrics_addresses or both")
        return self

    @property
    def redis_socket(self) -> Path:
        """The embedded Redis's socket. A socket path is limited to 108 bytes, so a deep data_dir gets a short alias."""
        path = self.data_dir / "redis.sock"
        return path if len(os.fsencode(path)) <= _MAX_SOCKET_PATH_BYTES else self._short_alias("") / "redis.sock"

    @property
    def private_paths(self) -> tuple[Path, ...]:
        """Paths that only the service may read: every configured file and folder except the playbooks."""
        keys = [key for key in (*PATH_KEYS, *OPTIONAL_PATH_KEYS) if key != "playbook_root"]
        # audit.log names the head file; here it is enough that its name starts the same way.
        head = self.audit_file.with_name(f"{self.audit_file.name}.head")
        paths = [getattr(self, key) for key in keys]
        return tuple(path for path in (*paths, head, self.config_file) if path is not None)

    @property
    def ssh_masters_dir(self) -> Path:
        """Folder of the fast ssh profile's master sockets: in data_dir or in a short alias, as for Redis."""
        path = Path(os.path.realpath(self.data_dir)) / "ssh"  # as Ansible resolves it
        plain = _PLAIN_PATH.fullmatch(str(path)) and len(os.fsencode(path)) <= _MAX_MASTERS_PATH_BYTES
        return path if plain else self._short_alias("-ssh")

    @property
    def store_url(self) -> str:
        return self._redis_url(self.CELERY_RESULT_BACKEND)

    @property
    def broker_url(self) -> str:
        return self._redis_url(self.CELERY_BROKER_URL)

    @property
    def database_url(self) -> str | None:
        """The history database; None: there is none, because several machines may use this Redis and none is named."""
        if self.DATABASE_URL != EMBEDDED:
            return self.DATABASE_URL
        is_alone = self.CELERY_RESULT_BACKEND == EMBEDDED
        return f"sqlite:///{self.data_dir / 'history.sqlite3'}" if is_alone else None

    @property
    def kept_days(self) -> int:
        """Days a finished task is kept, in Redis or in the history database."""
        return self.retention_days or (365 if self.database_url else 30)

    @property
    def kept_tasks(self) -> int:
        """How many finished tasks are kept; 0: any number."""
        default = 0 if self.database_url else 200_000
        return default if self.retention_tasks is None else self.retention_tasks

    @property
    def queues(self) -> tuple[str, ...]:
        """The queues in worker_queues."""
        return tuple(comma_list(self.worker_queues))

    @property
    def embeds_redis(self) -> bool:
        return EMBEDDED in (self.CELERY_BROKER_URL, self.CELERY_RESULT_BACKEND)

    @property
    def allowed_origins(self) -> frozenset[str]:
        """The origins in cors_origins."""
        return frozenset(comma_list(self.cors_origins))

    @property
    def proxy_networks(self) -> tuple[Network, ...]:
        """The networks in trusted_proxies."""
        return tuple(ipaddress.ip_network(word, strict=False) for word in comma_list(self.trusted_proxies))

    @property
    def project_host_list(self) -> tuple[str, ...]:
        """The hosts in project_hosts."""
        return tuple(comma_list(self.project_hosts))

    @property
    def callback_host_list(self) -> tuple[str, ...]:
        """The hosts in callback_hosts."""
        return tuple(comma_list(self.callback_hosts))

    @property
    def choices_host_list(self) -> tuple[str, ...]:
        """The hosts in choices_hosts."""
        return tuple(comma_list(self.choices_hosts))

    @property
    def link_url(self) -> str:
        """The service's URL in links, without a slash at its end."""
        return (self.public_url or self.url).rstrip("/")

    @property
    def metrics_networks(self) -> tuple[Network, ...]:
        """The networks in metrics_addresses."""
        return tuple(ipaddress.ip_network(word, strict=False) for word in comma_list(self.metrics_addresses))

    @property
    def is_tls(self) -> bool:
        """Whether the web server itself terminates TLS."""
        return self.tls_certificate is not None

    @property
    def listens_on_loopback(self) -> bool:
        """Whether only this machine can reach the web server."""
        return is_loopback(self.Flask_tcp_ip)

    @property
    def url(self) -> str:
        """The web server's URL for a browser on this machine."""
        scheme, host = "https" if self.is_tls else "http", self.Flask_tcp_ip
        return f"{scheme}://{f'[{host}]' if ':' in host else host}:{self.Flask_tcp_port}"

    def _short_alias(self, purpose: str) -> Path:
        digest = sha256(os.fsencode(self.data_dir)).hexdigest()[:16]
        return Path(tempfile.gettempdir()) / f"flansible-{os.getuid()}-{digest}{purpose}"

    def _redis_url(self, value: str) -> str:
        return f"redis+socket://{self.redis_socket}" if value == EMBEDDED else value


# The keys an operator can set: the fields above, except the two that record their origin.
KEYS = tuple(name for name, field in Settings.model_fields.items() if not field.exclude)
PATH_KEYS = ("playbook_root", "rbac_file", "data_dir", "secret_key_file", "token_file", "audit_file")
OPTIONAL_PATH_KEYS = ("tls_certificate", "tls_key", "metrics_token_file")


def is_loopback(address: str) -> bool:
    if address == "localhost":
        return True
    try:
        return ipaddress.ip_address(address.strip("[]")).is_loopback
    except ValueError:
        return False
