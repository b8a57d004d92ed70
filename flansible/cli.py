"""The commands. The only module that imports inside functions, so that each command loads only what it needs."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from typing import TYPE_CHECKING, NoReturn

import click

from flansible import __version__
from flansible.errors import ConfigurationError, FlansibleError

if TYPE_CHECKING:
    from flansible.config import Settings

_config_option = click.option(
    "--config",
    "config_file",
    metavar="FILE",
    help="config.ini to read; default: $FLANSIBLE_CONFIG, ./config.ini, none.",
)
EXIT_CONFIGURATION = 2


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="flansible")
def cli() -> None:
    """Run Ansible ad-hoc commands and playbooks over HTTP."""


@cli.command()
@_config_option
@click.option("--flower", is_flag=True, help="Start Flower as well.")
def up(config_file: str | None, flower: bool) -> None:
    """Start the whole service on this machine: Redis, a worker and the web server."""
    from flansible.up import Service

    settings = _settings(config_file)
    sys.exit(Service(settings, with_flower=flower).run())


@cli.command()
@_config_option
def web(config_file: str | None) -> None:
    """Start the web server alone."""
    settings = _settings(config_file)
    from flansible.web.server import serve

    serve(settings)


@cli.command()
@_config_option
@click.option("--name", default="flansible", show_default=True, help="Name of this worker; unique on its machine.")
@click.option("--concurrency", type=click.IntRange(1, 1000), help="Runs side by side; default: worker_concurrency.")
def worker(config_file: str | None, name: str, concurrency: int | None) -> None:
    """Start a Celery worker alone."""
    settings = _settings(config_file)
    from flansible import celery_app

    celery_app.configure(settings)
    # Ansible has good reasons to run as root, and `flansible doctor` tells when it does.
    warnings.filterwarnings("ignore", message="You're running the worker with superuser privileges")
    # Mingle waits a second for neighbours that have nothing to tell; gossip is chatter nobody here listens to.
    options = ["--quiet", "worker", f"--hostname={name}@%h", f"--loglevel={settings.log_level}"]
    options += ["--without-mingle", "--without-gossip"]
    if concurrency:
        options.append(f"--concurrency={concurrency}")
    celery_app.app.worker_main(options)


@cli.command()
@_config_option
def flower(config_file: str | None) -> None:
    """Start Flower, Celery's monitor, behind admin's login."""
    settings = _settings(config_file)
    from flansible import flower as flower_server

    flower_server.serve(settings)


@cli.command()
@_config_option
@click.argument("user")
@click.option("--inventory", "inventories", multiple=True, metavar="PATH", help="Inventory of a new user; repeatable.")
def passwd(config_file: str | None, user: str, inventories: tuple[str, ...]) -> None:
    """Set USER's password in rbac.json, hashed; adds USER when new. Reads it from standard input or asks for it."""
    settings = _settings(config_file)
    from flansible import passwords

    if sys.stdin.isatty():
        password = click.prompt("New password", hide_input=True, confirmation_prompt=True)
    else:
        password = sys.stdin.readline().rstrip("\r\n")
    if not password:
        _fail("The password must not be empty.")
    try:
        added = passwords.set_password(settings.rbac_file, user, password, inventories)
    except ConfigurationError as error:
        _fail(str(error))
    click.echo(f"{'Added' if added else 'Changed'} {user} in {settings.rbac_file}")


@cli.command()
@_config_option
def doctor(config_file: str | None) -> None:
    """Check this installation and say what to do about what is not right."""
    from flansible import doctor as checks

    sys.exit(checks.main(config_file))


def _settings(config_file: str | None) -> Settings:
    from flansible import config

    try:
        settings = config.load(config_file)
    except ConfigurationError as error:
        _fail(str(error))
    logging.basicConfig(
        level=settings.log_level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stderr
    )
    return settings


def _fail(message: str) -> NoReturn:
    click.echo(message, err=True)
    sys.exit(EXIT_CONFIGURATION)


def main() -> None:
    """Entry point: what a command raises of ours becomes one message, without a traceback."""
    try:
        cli()
    except ConfigurationError as error:
        _fail(str(error))
    except FlansibleError as error:
        click.echo(str(error), err=True)
        sys.exit(1)
    except BrokenPipeError:
        # The reader of our output is gone; keep the interpreter from complaining once more as it ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        sys.exit(1)
