"""The commands of the service; flansible.client.commands has those of its clients.

Only these two modules import inside functions, so that each command loads only what it needs.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import warnings
from datetime import UTC, datetime
from typing import TYPE_CHECKING, NoReturn

import click

from flansible import __version__
from flansible.client.commands import COMMANDS
from flansible.errors import ClientError, ConfigurationError, FlansibleError

if TYPE_CHECKING:
    from flansible.config import Settings
    from flansible.identity.tokens import Scope

_config_option = click.option(
    "--config",
    "config_file",
    metavar="FILE",
    help="config.ini to read; default: $FLANSIBLE_CONFIG, ./config.ini, none.",
)
EXIT_CONFIGURATION = 2


@click.group(commands=COMMANDS, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="flansible")
def cli() -> None:
    """Run Ansible ad-hoc commands and playbooks over HTTP."""


@cli.command()
@click.argument("folder", metavar="[DIR]", default=".")
def init(folder: str) -> None:
    """Make the files of a new service in DIR, by default here; files that exist are kept."""
    from pathlib import Path

    from flansible.starter import new_folder

    for line in new_folder.describe(new_folder.make(Path(folder)), sys.stdout.isatty()):
        click.echo(line)


@cli.command()
@_config_option
@click.option("--flower", is_flag=True, help="Start Flower as well.")
def up(config_file: str | None, flower: bool) -> None:
    """Start the whole service on this machine: Redis, a worker and the web server."""
    from flansible.launcher import up as preparation

    preparation.serve(_service_settings(config_file), with_flower=flower)


@cli.command()
@_config_option
def repair(config_file: str | None) -> None:
    """Mend the embedded Redis' file and the embedded history database, while the service is stopped.

    Redis' file is cut behind its last whole command, when `flansible up` leaves that to you: what was recorded after
    the damage is lost, and tasks may run again. Of the history all is saved that can be read. Damaged files are kept.
    """
    settings = _settings(config_file)
    from flansible.history import opening, salvage
    from flansible.launcher import up as preparation

    if not settings.embeds_redis or not settings.data_dir.is_dir():
        _fail("There is no embedded Redis here; cd to the service's folder, or give --config")
    lines = preparation.repair_redis(settings)
    if (history := opening.embedded_file(settings)) is not None:
        with preparation.stopped(settings):
            lines += salvage.mend(history)
    for line in lines or ["Nothing is damaged"]:
        click.echo(line)


@cli.command()
@_config_option
def web(config_file: str | None) -> None:
    """Start only the web server."""
    settings = _service_settings(config_file)
    from flansible.doctor import open_services
    from flansible.web.gunicorn_server import serve

    open_services.warn_of_plain_http(settings)

    serve(settings)


def _queues(_context: click.Context, _parameter: click.Parameter, given: str | None) -> str | None:
    from flansible.config import values

    try:
        return given and values.queue_names(given)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


@cli.command()
@_config_option
@click.option("--name", default="flansible", show_default=True, help="Name of this worker; unique on its machine.")
@click.option("--concurrency", type=click.IntRange(1, 1000), help="Runs at the same time; default: worker_concurrency.")
@click.option("--queues", callback=_queues, help="Queues to serve, separated by commas; default: worker_queues.")
def worker(config_file: str | None, name: str, concurrency: int | None, queues: str | None) -> None:
    """Start only a Celery worker."""
    settings = _service_settings(config_file)
    from flansible.broker import app as broker_app

    if concurrency:
        settings = settings.model_copy(update={"worker_concurrency": concurrency})
    if queues:
        settings = settings.model_copy(update={"worker_queues": queues})
    broker_app.configure(settings)
    # Ansible has good reasons to run as root, and `flansible doctor` reports it.
    warnings.filterwarnings("ignore", message="You're running the worker with superuser privileges")
    sys.exit(broker_app.run_worker(name, settings.log_level))


@cli.command()
@_config_option
def flower(config_file: str | None) -> None:
    """Start Flower, Celery's monitor, behind admin's login."""
    settings = _service_settings(config_file)
    from flansible.monitoring import flower as flower_server

    flower_server.serve(settings)


@cli.command()
@_config_option
@click.argument("user")
@click.option(
    "--inventory",
    "inventories",
    multiple=True,
    metavar="PATH",
    help="Inventory of USER; can be repeated. Replaces those that USER had.",
)
def passwd(config_file: str | None, user: str, inventories: tuple[str, ...]) -> None:
    """Set USER's password in rbac.json, hashed; adds a new USER. Prompts for it, or reads it from standard input.

    admin's must have 8 characters or more.
    """
    settings = _settings(config_file)
    from flansible.identity import admin_commands, users

    # A new service may begin with admin's password, and nobody else's.
    is_beside = settings.rbac_file == settings.base_dir / "rbac.json"
    if not settings.config_file and is_beside and not settings.rbac_file.exists() and user != users.ADMIN:
        _fail("no config.ini here: cd to the service's folder, or give --config")
    password = _new_password(user)
    before = admin_commands.inventories(settings, user)
    added = admin_commands.set_password(settings, user, password, inventories)
    click.echo(f"{'Added' if added else 'Changed'} {user} in {settings.rbac_file}")
    if inventories and before:
        click.echo(f"Replaced the inventories of {user}. They were: {', '.join(before)}")
    _warn_of_missing(inventories)


def _new_password(user: str) -> str:
    from flansible.identity import passwords

    if sys.stdin.isatty():
        password = str(click.prompt("New password", hide_input=True, confirmation_prompt=True))
    else:
        password = sys.stdin.readline().rstrip("\r\n")
    if not password:
        _fail("The password must not be empty.")
    if passwords.is_too_short(user, password):
        _fail(f"The password of {user}, who has all rights, must have {passwords.MIN_CHARACTERS} characters or more.")
    return password


def _warn_of_missing(inventories: tuple[str, ...]) -> None:
    for path in inventories:
        if not os.path.exists(path):
            click.echo(f"{os.path.abspath(path)} does not exist: make it, or name another with --inventory", err=True)


@cli.group()
def user() -> None:
    """Add, list and remove the users of rbac.json, and set their groups."""


@user.command("add")
@_config_option
@click.argument("name", metavar="USER")
@click.option("--inventory", "inventories", multiple=True, metavar="PATH", help="Inventory of USER; can be repeated.")
@click.option("--group", "groups", multiple=True, metavar="GROUP", help="Group of USER; can be repeated.")
@click.option(
    "--role", type=click.Choice(["operator", "viewer", "auditor"]), default="operator", show_default=True, help="Role."
)
def add_user(
    config_file: str | None, name: str, inventories: tuple[str, ...], groups: tuple[str, ...], role: str
) -> None:
    """Add USER to rbac.json. Prompts for the password, or reads it from standard input."""
    settings = _settings(config_file)
    from flansible.identity import admin_commands, users

    if name == users.ADMIN:
        _fail("admin is made by `flansible init`, `flansible up` or `flansible passwd admin`")
    admin_commands.add_user(settings, name, _new_password(name), inventories, groups, role)
    click.echo(f"Added {name} in {settings.rbac_file}")
    _warn_of_missing(inventories)


@user.command("list")
@_config_option
def list_users(config_file: str | None) -> None:
    """List the users with their roles, groups and inventories."""
    settings = _settings(config_file)
    from flansible.identity import admin_commands

    for line in admin_commands.list_users(settings):
        click.echo(line)


@user.command("remove")
@_config_option
@click.argument("name", metavar="USER")
def remove_user(config_file: str | None, name: str) -> None:
    """Remove USER and the tokens of USER; what waits or runs is canceled. The homes of confined runs are kept."""
    settings = _settings(config_file)
    from flansible.identity import admin_commands

    revoked = admin_commands.remove_user(settings, name)
    tokens = f"; tokens revoked: {revoked}" if revoked else ""
    click.echo(f"Removed {name} from {settings.rbac_file}{tokens}")


@user.command("groups")
@_config_option
@click.argument("name", metavar="[USER]", required=False)
@click.argument("groups", metavar="[GROUP]...", nargs=-1)
@click.option("--none", "has_none", is_flag=True, help="Take USER out of all groups.")
def user_groups(config_file: str | None, name: str | None, groups: tuple[str, ...], has_none: bool) -> None:
    """List all groups with their members, or those of USER; with GROUPs, make these the groups of USER, in this order.

    Of the entries that allow a request the first counts: USER's own, then the groups in this order.
    """
    settings = _settings(config_file)
    from flansible.identity import admin_commands

    if has_none and (groups or name is None):
        raise click.UsageError("--none takes a USER and no GROUP")
    if name is None:
        lines = admin_commands.list_groups(settings)
    elif groups or has_none:
        before = admin_commands.groups_of(settings, name)
        admin_commands.set_groups(settings, name, groups)
        lines = [f"Groups of {name}: {', '.join(groups) or 'none'}. They were: {', '.join(before) or 'none'}"]
    else:
        lines = list(admin_commands.groups_of(settings, name))
    for line in lines:
        click.echo(line)


@cli.group()
def token() -> None:
    """Create, list and revoke API tokens."""


@token.command("create")
@_config_option
@click.argument("user")
@click.option(
    "--expires", default="90d", show_default=True, metavar="WHEN", help="30d, 12h, 2027-01-31 (UTC) or never."
)
@click.option(
    "--scope",
    type=click.Choice(["read", "run"]),
    default="run",
    show_default=True,
    help="read: cannot start or cancel tasks.",
)
def create_token(config_file: str | None, user: str, expires: str, scope: Scope) -> None:
    """Create a token for USER of rbac.json and print it; it cannot be shown again."""
    settings = _settings(config_file)
    from flansible.identity import admin_commands, tokens

    try:
        until = tokens.parse_expiry(expires, datetime.now(UTC))
    except (ValueError, OverflowError):
        raise click.UsageError("--expires takes never, 30d, 12h, 90m, or a future date such as 2027-01-31") from None
    made = admin_commands.create_token(settings, user, scope, until)
    click.echo(made.text)
    click.echo(f"Token {made.token.id} for {user}; it is shown only now", err=True)


@token.command("list")
@_config_option
@click.argument("user", required=False)
def list_tokens(config_file: str | None, user: str | None) -> None:
    """List all tokens, or those of USER."""
    settings = _settings(config_file)
    from flansible.identity import admin_commands

    for line in admin_commands.list_tokens(settings, user):
        click.echo(line)


@token.command("revoke")
@_config_option
@click.argument("token_id", metavar="ID")
def revoke_token(config_file: str | None, token_id: str) -> None:
    """Revoke the token ID; the next request with it is refused."""
    settings = _settings(config_file)
    from flansible.identity import admin_commands

    gone = admin_commands.revoke_token(settings, token_id)
    if gone is None:
        click.echo(f"There is no token {token_id}", err=True)
        sys.exit(1)
    click.echo(f"Revoked {gone.id} of {gone.user}")


@cli.group()
def audit() -> None:
    """Work with the audit log."""


@audit.command("verify")
@_config_option
@click.option("--partial", is_flag=True, help="The log's first files no longer exist: start at any record.")
@click.argument("files", nargs=-1, metavar="[FILE]...")
def verify_audit(config_file: str | None, partial: bool, files: tuple[str, ...]) -> None:
    """Check that the log was not changed. FILE: its files, oldest first; default: audit_file."""
    settings = _settings(config_file)
    from pathlib import Path

    from flansible.audit import verify

    paths = [Path(name) for name in files] or [settings.audit_file]
    key = verify.read_key(settings.secret_key_file)
    found = verify.verify(paths, settings.audit_file, key, partial)
    if isinstance(found, verify.Wrong):
        click.echo(str(found), err=True)
        sys.exit(1)
    click.echo(str(found))


@cli.command()
@_config_option
@click.argument("user")
@click.option("--group", metavar="GROUP", help="The home of runs that this group of USER's allows; by default others.")
def home(config_file: str | None, user: str, group: str | None) -> None:
    """Create and print the home folder of USER's confined runs, for ssh keys and known_hosts.

    Runs that a group's entry in rbac.json allows have another one than those of USER's own.
    """
    settings = _settings(config_file)
    from flansible.identity import users
    from flansible.models import principal
    from flansible.worker import homes

    found = users.RbacFile(settings.rbac_file, settings=settings).users().get(user)
    if found is None:
        _fail(f"{user} is not a user of {settings.rbac_file}; add one with `flansible passwd`")
    if group is not None and group not in found.groups:
        _fail(f"{user} is not in group {group}. The groups of {user}: {', '.join(found.groups) or 'none'}")
    if user == users.ADMIN:
        _fail("Runs of admin are not confined: their home is that of the service's account")
    try:
        entry = users.OWN_ENTRY if group is None else users.GROUP_PREFIX + group
        click.echo(homes.make_home(principal(user, entry), settings.data_dir))
    except OSError as error:
        _fail(f"The home of {user} cannot be made: {error}")


@cli.command()
@_config_option
@click.option("--rights", "user", metavar="USER", help="Print what this user may do instead.")
def doctor(config_file: str | None, user: str | None) -> None:
    """Check this installation and print what to do about each problem."""
    from flansible.doctor import rights
    from flansible.doctor import run as checks

    sys.exit(checks.main(config_file) if user is None else rights.main(config_file, user))


@cli.command()
@_config_option
@click.option("--since", required=True, metavar="WHEN", help="A date, a time (RFC 3339), or how long ago: 12h, 7d.")
@click.option("--until", metavar="WHEN", help="Likewise; default: now.")
@click.option("--output", "path", metavar="FILE", help="Where to write; default: standard output.")
@click.option("--without-output", is_flag=True, help="Leave out the output of the tasks.")
def export(config_file: str | None, since: str, until: str | None, path: str | None, without_output: bool) -> None:
    """Write finished tasks as JSON lines, oldest first, to archive them."""
    settings = _settings(config_file)
    from flansible.history.opening import open_records
    from flansible.store import export as exporter

    try:
        first, last = exporter.parse_moment(since), exporter.parse_moment(until) if until else None
    except (ValueError, OverflowError):
        raise click.UsageError("--since and --until take 2026-11-22, 2026-11-22T08:00:00Z, or 90m, 12h, 7d") from None
    with exporter.open_target(path) as file, contextlib.closing(open_records(settings)) as store:
        written, unfinished = exporter.export(store, first, last, not without_output, file)
    left = f"; {unfinished} left out, because they are not final yet" if unfinished else ""
    click.echo(f"{written} tasks written{left}", err=True)


@cli.command()
@_config_option
@click.option("--with-key", is_flag=True, help="Include secret_key_file: who has the file can read sealed secrets.")
@click.argument("file", metavar="FILE")
def backup(config_file: str | None, with_key: bool, file: str) -> None:
    """Write FILE with the records, the users, the tokens and the configuration of this service, while it runs.

    FILE has the hashes of passwords: its mode is 0600, and it must not exist yet.
    """
    settings = _settings(config_file)
    from pathlib import Path

    from flansible.backup import write_backup

    for line in write_backup.write(settings, Path(file), with_key=with_key):
        click.echo(line, err=True)


@cli.command()
@_config_option
@click.argument("file", metavar="FILE")
def restore(config_file: str | None, file: str) -> None:
    """Bring a service back from FILE, which `flansible backup` wrote: run it in the folder of the new service.

    Its data_dir must be empty or not exist, and nothing that exists is replaced. Without a config.ini, that of FILE is
    used.
    """
    from pathlib import Path

    from flansible.backup import restore_backup

    for line in restore_backup.restore(Path(file), Path.cwd(), lambda: _settings(config_file)):
        click.echo(line)


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


def _service_settings(config_file: str | None) -> Settings:
    """Loads the settings for a part of the service, which does not start while other users can read its secrets."""
    from flansible.doctor import open_services, secret_files

    settings = _settings(config_file)
    secret_files.refuse_exposed(settings)
    open_services.warn(settings)
    return settings


def _fail(message: str) -> NoReturn:
    click.echo(message, err=True)
    sys.exit(EXIT_CONFIGURATION)


def main() -> None:
    """Runs a command; an error of Flansible's own becomes one message without a traceback."""
    try:
        cli()
    except ConfigurationError as error:
        _fail(str(error))
    except ClientError as error:
        click.echo(f"flansible: {error}", err=True)
        sys.exit(error.exit_code)
    except FlansibleError as error:
        click.echo(str(error), err=True)
        sys.exit(1)
    except BrokenPipeError:
        # The reader of our output is gone; this keeps the interpreter from reporting it once more as it ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        sys.exit(1)
