"""Reads the settings from config.ini and FLANSIBLE_* variables.

Called by each command at its start, once per process. An unknown key or an invalid value stops the start; all faults
are reported together, each with its file or variable.
"""

from __future__ import annotations

import configparser
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from flansible import wording
from flansible.config.settings import KEYS, OPTIONAL_PATH_KEYS, PATH_KEYS, Settings
from flansible.config.values import comma_list
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
    shown = "" if key.endswith("_URL") or key == "CELERY_RESULT_BACKEND" else repr(item["input"])
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
    resolved: dict[str, Any] = {key: value for key, value in values.items() if value != "" or key not in PATH_KEYS}
    for key in PATH_KEYS:
        given = resolved.get(key) or Settings.model_fields[key].default
        resolved[key] = (base_dir / Path(given).expanduser()).absolute()
    for key in OPTIONAL_PATH_KEYS:
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
