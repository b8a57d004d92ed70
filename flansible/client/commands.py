"""The client commands. They import inside functions, as flansible.cli does, so that each loads only what it needs."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

import click

from flansible.client.login_options import LOGIN_OPTIONS
from flansible.states import State

if TYPE_CHECKING:
    from flansible.client.profile import Profile
    from flansible.client.replies import Format


class _RawCommand(click.Command):
    """Passes the whole command line, `--` and `--help` included, to a parser that follows Ansible's."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        ctx.params["arguments"] = args
        return []


def _login_options(command: Callable[..., None]) -> Callable[..., None]:
    """Adds the options that name the service and the user to a client command; `_login` reads them."""

    def remember(context: click.Context, option: click.Parameter, value: str | None) -> None:
        context.ensure_object(dict)[option.name] = value

    for name, metavar, text in reversed(LOGIN_OPTIONS):
        text = f"{text[0].upper()}{text[1:]}."
        command = click.option(name, metavar=metavar, help=text, callback=remember, expose_value=False)(command)
    return command


@click.command(cls=_RawCommand)
def adhoc(arguments: list[str]) -> None:
    """Run one module on hosts through a service, with the options of `ansible`."""
    from flansible.client import drop_in

    sys.exit(drop_in.main("adhoc", arguments))


@click.command(cls=_RawCommand)
def playbook(arguments: list[str]) -> None:
    """Run playbooks through a service, with the options of `ansible-playbook`."""
    from flansible.client import drop_in

    sys.exit(drop_in.main("playbook", arguments))


@click.command()
@_login_options
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
@click.argument("task_id")
def status(task_id: str, as_json: bool) -> None:
    """Show the status of a task."""
    from flansible.client import terminal

    sys.exit(terminal.show_status(_login(), task_id, as_json))


@click.command()
@_login_options
@click.option("--follow", is_flag=True, help="Follow until the task is final; Ctrl-C stops following, not the task.")
@click.option("--format", type=click.Choice(["txt", "ansi", "html"]), help="Default: ansi on a terminal, else txt.")
@click.argument("task_id")
def output(task_id: str, follow: bool, format: Format | None) -> None:
    """Show the output of a task."""
    from flansible.client import terminal

    if follow and format == "html":
        raise click.UsageError("an HTML page cannot be followed: leave out --follow, or choose another --format")
    sys.exit(terminal.show_output(_login(), task_id, format, follow))


@click.command()
@_login_options
@click.argument("task_id")
def result(task_id: str) -> None:
    """Show a task's results by host, as JSON."""
    from flansible.client import terminal

    sys.exit(terminal.show_result(_login(), task_id))


@click.command()
@_login_options
@click.option("--follow", is_flag=True, help="Follow until the task is final; Ctrl-C stops following, not the task.")
@click.option("--after", type=click.IntRange(0), default=0, help="Start after the event of this seq.")
@click.argument("task_id")
def events(task_id: str, after: int, follow: bool) -> None:
    """Show the events of a task, one JSON line each."""
    from flansible.client import terminal

    sys.exit(terminal.show_events(_login(), task_id, after, follow))


@click.command()
@_login_options
@click.argument("task_id")
def cancel(task_id: str) -> None:
    """Cancel a task and end every process it has started."""
    from flansible.client import terminal

    sys.exit(terminal.cancel(_login(), task_id))


@click.command()
@_login_options
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
@click.argument("task_id")
@click.argument("other_id", required=False)
def compare(task_id: str, other_id: str | None, as_json: bool) -> None:
    """Show what differs between two tasks; default: from the last run of the same that succeeded."""
    from flansible.client import comparing

    sys.exit(comparing.compare(_login(), task_id, other_id, as_json))


@click.command()
@_login_options
@click.option("--limit", type=click.IntRange(1, 1000), default=20, show_default=True, help="Largest number of tasks.")
@click.option("--state", type=click.Choice([state.value for state in State]), help="Only tasks in this state.")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def tasks(limit: int, state: str | None, as_json: bool) -> None:
    """List tasks, newest first."""
    from flansible.client import terminal

    sys.exit(terminal.list_tasks(_login(), limit, state, as_json))


@click.command()
@_login_options
@click.option("--limit", type=click.IntRange(1, 1000), default=20, show_default=True, help="Largest number of hits.")
@click.option("--in-output", is_flag=True, help="Search the output of tasks, not their playbooks, hosts and failures.")
@click.option("--json", "as_json", is_flag=True, help="One JSON line for each hit.")
@click.argument("words", nargs=-1, required=True, metavar="WORD...")
def search(words: tuple[str, ...], limit: int, in_output: bool, as_json: bool) -> None:
    """Find finished tasks that have all WORDs in their playbook, hosts or messages of failures."""
    from flansible.client import search_command

    sys.exit(search_command.search(_login(), " ".join(words), limit, in_output=in_output, as_json=as_json))


@click.command()
@_login_options
@click.option("-f", "--file", "paths", multiple=True, required=True, metavar="FILE|DIR", help="Can be repeated.")
@click.option("--set", "set_name", default="default", show_default=True, metavar="NAME", help="Applied together.")
@click.option("--dry-run", is_flag=True, help="Only say what would change.")
@click.option("--prune", is_flag=True, help="Delete what was applied earlier with this --set and is in no file.")
def apply(paths: tuple[str, ...], set_name: str, dry_run: bool, prune: bool) -> None:
    """Write the definitions of files to the service: all of them, or none."""
    from flansible.client import definition_commands

    sys.exit(definition_commands.apply(_login(), paths, set_name, dry_run=dry_run, prune=prune))


@click.command()
@_login_options
@click.option("-o", "--output", "_form", type=click.Choice(["yaml"]), default="yaml", show_default=True, help="Form.")
@click.argument("kind")
@click.argument("name", required=False)
def get(kind: str, name: str | None, _form: str) -> None:
    """Show a definition, or all of a KIND such as searches, as a file for `apply`."""
    from flansible.client import definition_commands

    sys.exit(definition_commands.get(_login(), kind, name))


def _login() -> Profile:
    from flansible.client.profile import Given, find

    given = click.get_current_context().obj
    return find(
        Given(
            given["url"], given["api_user"], given["api_password_file"], given["api_token_file"], given["api_ca_file"]
        )
    )


COMMANDS = (adhoc, playbook, status, output, result, events, cancel, tasks, search, compare, apply, get)
