"""Every setting once, with its type, default and help; read from config.ini and FLANSIBLE_* variables.

Called by each command at its start, once per process. An unknown key or an invalid value stops the start; all faults
are reported together, each with its file or variable. A test holds docs/configuration.md's table to the fields below.
"""

from __future__ import annotations

import configparser
import ipaddress
import os
import re
import tempfile
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from flansible import wording
from flansible.config import values as setting_values
from flansible.config.values import EMBEDDED as EMBEDDED
from flansible.config.values import ListenAddress, Network, Port, comma_list
from flansible.errors import ConfigurationError, Fault

SECTION = "Default"
VARIABLE_PREFIX = "FLANSIBLE_"
# Variables that start with the prefix and are not settings of the service.
OTHER_VARIABLES = frozenset(
    {
        "FLANSIBLE_CONFIG",
        "FLANSIBLE_URL",
        "FLANSIBLE_USER",
        "FLANSIBLE_PASSWORD",
        "FLANSIBLE_TOKEN",
        "FLANSIBLE_CA_FILE",
    }
)
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
    cors_origins: Annotated[str, AfterValidator(setting_values.origins)] = Field(
        "",
        description="Origins whose pages may use the API from a browser, such as `https://console.example.org`, "
        "separated by commas. Empty: none.",
    )
    web_workers: int = Field(2, ge=1, le=64, description="Processes of the web server.")
    web_threads: int = Field(16, ge=1, le=256, description="Threads of each web process.")
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
        8,
        ge=1,
        le=64,
        description="Warm Ansible processes kept per worker, one for each combination of Ansible configuration and "
        "confined user.",
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
    retention_days: int = Field(30, ge=1, description="Days the record and output of a finished task are kept.")
    retention_tasks: int = Field(
        200_000, ge=0, description="Finished tasks that are kept; above it the oldest are deleted. 0: any number."
    )
    retention_bytes: int = Field(
        0,
        ge=0,
        description="Bytes kept for all finished tasks together; above it the oldest are deleted. 0: any number.",
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

    @property
    def redis_socket(self) -> Path:
        """The embedded Redis's socket. A socket path is limited to 108 bytes, so a deep data_dir gets a short alias."""
        path = self.data_dir / "redis.sock"
        return path if len(os.fsencode(path)) <= _MAX_SOCKET_PATH_BYTES else self._short_alias("") / "redis.sock"

    @property
    def private_paths(self) -> tuple[Path, ...]:
        """Paths that only the service may read: every configured file and folder except the playbooks."""
        keys = [key for key in (*_PATH_KEYS, *_OPTIONAL_PATH_KEYS) if key != "playbook_root"]
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
_PATH_KEYS = ("playbook_root", "rbac_file", "data_dir", "secret_key_file", "token_file", "audit_file")
_OPTIONAL_PATH_KEYS = ("tls_certificate", "tls_key")


def is_loopback(address: str) -> bool:
    if address == "localhost":
        return True
    try:
        return ipaddress.ip_address(address.strip("[]")).is_loopback
    except ValueError:
        return False


def find_config(explicit: str | None, environ: Mapping[str, str] = os.environ) -> Path | None:
    """Finds the config.ini to read: the one given, $FLANSIBLE_CONFIG, ./config.ini if it exists, or none."""
    named = explicit or environ.get("FLANSIBLE_CONFIG")
    if named:
        return Path(named).absolute()
    beside = Path.cwd() / "config.ini"
    return beside if beside.is_file() else None


def load(explicit: str | None = None, environ: Mapping[str, str] = os.environ) -> Settings:
    """Loads config.ini and the environment (which wins). Raises ConfigurationError with every fault."""
    path = find_config(explicit, environ)
    faults: list[Fault] = []
    values: dict[str, str] = {}
    sources: dict[str, str] = {}
    if path is not None:
        for key, value in _read_ini(path, faults).items():
            values[key], sources[key] = value, str(path)
    for key, value in _read_environment(environ, faults).items():
        values[key], sources[key] = value, VARIABLE_PREFIX + key.upper()
    base_dir = path.parent if path else Path.cwd()
    try:
        settings = Settings(**_resolve_paths(values, base_dir), base_dir=base_dir, config_file=path)
    except ValidationError as error:
        faults += [_fault(item, sources) for item in error.errors(include_url=False)]
    if faults:
        raise ConfigurationError(faults)
    return settings


def _fault(item: Any, sources: Mapping[str, str]) -> Fault:
    key = str(item["loc"][0]) if item["loc"] else ""
    message = wording.plain(item["msg"])
    if not key:
        # A fault of several keys: it comes from where those of them that are set were read.
        named = [name for name in sources if name in message]
        source = ", ".join(dict.fromkeys(sources[name] for name in named))
        return Fault(source or "config.ini", ", ".join(named), message)
    # A URL may carry a password: name the key, never the value.
    shown = "" if key.startswith("CELERY_") and "URL" in key or key == "CELERY_RESULT_BACKEND" else repr(item["input"])
    return Fault(sources.get(key, "config.ini"), key, f"{shown} {message}".strip())


def _read_ini(path: Path, faults: list[Fault]) -> dict[str, str]:
    parser = configparser.ConfigParser(interpolation=None, default_section="\0none")
    try:
        parser.read_string(path.read_text(encoding="utf-8"), source=str(path))
    except FileNotFoundError:
        faults.append(Fault(str(path), "", "does not exist; name another file with --config, or leave it out"))
        return {}
    except configparser.MissingSectionHeaderError as error:
        faults.append(Fault(str(path), f"line {error.lineno}", f"is not in a section; begin the file with [{SECTION}]"))
        return {}
    except configparser.ParsingError as error:
        # A line may carry a password, and configparser's message quotes it: report only its number.
        numbers = ", ".join(str(number) for number, _ in error.errors)
        faults.append(Fault(str(path), f"line {numbers}", "is not of the form key = value"))
        return {}
    except (OSError, UnicodeDecodeError, configparser.Error) as error:
        faults.append(Fault(str(path), "", f"cannot be read: {_one_line(error)}"))
        return {}
    for section in parser.sections():
        if section.lower() != SECTION.lower():
            faults.append(Fault(str(path), f"[{section}]", f"unknown section; the only one is [{SECTION}]"))
    names = [section for section in parser.sections() if section.lower() == SECTION.lower()]
    pairs = [pair for name in names for pair in parser.items(name)]
    return _known(pairs, str(path), faults)


def _read_environment(environ: Mapping[str, str], faults: list[Fault]) -> dict[str, str]:
    pairs = [
        (name.removeprefix(VARIABLE_PREFIX), value)
        for name, value in environ.items()
        if name.startswith(VARIABLE_PREFIX) and name not in OTHER_VARIABLES
    ]
    return _known(pairs, "environment", faults, prefix=VARIABLE_PREFIX)


def _known(pairs: list[tuple[str, str]], source: str, faults: list[Fault], prefix: str = "") -> dict[str, str]:
    by_lower = {key.lower(): key for key in KEYS}
    values: dict[str, str] = {}
    for name, value in pairs:
        key = by_lower.get(name.lower())
        if key is None:
            near = wording.nearest(name, KEYS)
            hint = f"; did you mean {prefix}{near}?" if near else ""
            faults.append(Fault(source, prefix + name, f"unknown key{hint}"))
        else:
            values[key] = value.strip()
    return values


def _resolve_paths(values: Mapping[str, str], base_dir: Path) -> dict[str, Any]:
    resolved: dict[str, Any] = {key: value for key, value in values.items() if value != "" or key not in _PATH_KEYS}
    for key in _PATH_KEYS:
        given = resolved.get(key) or Settings.model_fields[key].default
        resolved[key] = (base_dir / Path(given).expanduser()).absolute()
    for key in _OPTIONAL_PATH_KEYS:
        if given := resolved.pop(key, ""):
            resolved[key] = (base_dir / Path(given).expanduser()).absolute()
    inventory = resolved.get("default_inventory")
    if inventory == "":
        resolved["default_inventory"] = None
    elif inventory and "," not in inventory:
        resolved["default_inventory"] = str((base_dir / Path(inventory).expanduser()).absolute())
    if "sandbox_paths" in resolved:
        paths = comma_list(resolved["sandbox_paths"])
        resolved["sandbox_paths"] = ",".join(str((base_dir / Path(path).expanduser()).absolute()) for path in paths)
    return resolved


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
