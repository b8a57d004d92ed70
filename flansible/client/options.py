"""The options of `ansible` and `ansible-playbook` as tables, with parsers that accept what Ansible's accept.

Each option is listed once, with every name Ansible has for it and its request field. A test holds these
tables to Ansible's own parsers. Used by `flansible adhoc` and `flansible playbook` (flansible.client.drop_in).
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NoReturn

from flansible import __version__
from flansible.client.login_options import LOGIN_OPTIONS
from flansible.errors import OptionError

if TYPE_CHECKING:
    from _typeshed import SupportsWrite

Program = Literal["adhoc", "playbook"]
How = Literal["text", "number", "switch", "count", "repeated", "prompt", "refused"]

_CONNECTION = "connection options"
_BECOME = "privilege escalation options"


@dataclass(frozen=True)
class Option:
    """One option: its names, the request field it sets, and how it is given.

    prompt: a switch; the terminal prompts for the field, a secret; refused: for the reason in EXCLUDED; excludes:
    options of one program with the same word here exclude each other.
    """

    names: tuple[str, ...]
    field: str
    how: How
    help: str
    metavar: str = "TEXT"
    group: str = "options"
    excludes: str = ""


SHARED = (
    Option(("-i", "--inventory", "--inventory-file"), "inventory", "repeated",
           "inventory path or comma-separated hosts; repeatable", "INVENTORY"),
    Option(("-l", "--limit"), "limit", "text", "further limit the hosts to this pattern", "PATTERN"),
    Option(("--list-hosts",), "list_hosts", "switch", "list matching hosts without executing anything"),
    Option(("--flush-cache",), "flush_cache", "switch", "clear the fact cache of every host in the inventory first"),
    Option(("-e", "--extra-vars"), "extra_vars", "repeated",
           "variables as key=value, YAML or JSON, or @FILE, which is read on this machine; repeatable", "VARIABLES"),
    Option(("-f", "--forks"), "forks", "number", "number of hosts worked on in parallel", "N"),
    Option(("-v", "--verbose"), "verbose_level", "count", "show more, up to -vvvvvv"),
    Option(("-C", "--check"), "check", "switch", "predict changes instead of making them"),
    Option(("-D", "--diff"), "diff", "switch", "show differences in changed files and templates"),
    Option(("-M", "--module-path"), "module_path", "repeated",
           "folders searched for modules before all others, separated by colons; repeatable", "PATHS"),
    Option(("--vault-id",), "vault_id", "repeated",
           "vault identity as LABEL@FILE, a file on the service's machine, or LABEL@prompt; repeatable", "ID"),
    Option(("-J", "--ask-vault-password", "--ask-vault-pass"), "vault_password", "prompt",
           "prompt for the vault password", excludes="vault"),
    Option(("--vault-password-file", "--vault-pass-file"), "vault_password_file", "repeated",
           "vault password file on the service's machine; repeatable", "FILE", excludes="vault"),
    Option(("-u", "--user"), "remote_user", "text", "connect as this user", "USER", _CONNECTION),
    Option(("-c", "--connection"), "connection", "text", "connection type, such as ssh or local", "TYPE", _CONNECTION),
    Option(("-T", "--timeout"), "timeout", "number", "connection timeout in seconds", "SECONDS", _CONNECTION),
    Option(("--private-key", "--key-file"), "private_key_file", "text",
           "key to connect with, a file on the service's machine", "FILE", _CONNECTION),
    Option(("--ssh-common-args",), "ssh_common_args", "text", "arguments for ssh, sftp and scp", "ARGS", _CONNECTION),
    Option(("--ssh-extra-args",), "ssh_extra_args", "text", "arguments for ssh only", "ARGS", _CONNECTION),
    Option(("--sftp-extra-args",), "sftp_extra_args", "text", "arguments for sftp only", "ARGS", _CONNECTION),
    Option(("--scp-extra-args",), "scp_extra_args", "text", "arguments for scp only", "ARGS", _CONNECTION),
    Option(("-k", "--ask-pass"), "connection_password", "prompt", "prompt for the password to connect with",
           excludes="connection"),
    Option(("--connection-password-file", "--conn-pass-file"), "connection_password_file", "text",
           "file on the service's machine with that password; - is standard input", "FILE", excludes="connection"),
    Option(("-b", "--become"), "become", "switch", "run operations with become", group=_BECOME),
    Option(("--become-method",), "become_method", "text", "privilege escalation method, such as sudo", "METHOD",
           _BECOME),
    Option(("--become-user",), "become_user", "text", "user to become, by default root", "USER", _BECOME),
    Option(("-K", "--ask-become-pass"), "become_password", "prompt", "prompt for the password for become",
           excludes="become"),
    Option(("--become-password-file", "--become-pass-file"), "become_password_file", "text",
           "file on the service's machine with that password; - is standard input", "FILE", excludes="become"),
)  # fmt: skip
ADHOC = (
    *SHARED,
    Option(("-m", "--module-name"), "module", "text", "module to run (default: command)", "MODULE"),
    Option(("-a", "--args"), "module_args", "text", "its arguments as k=v, free form or JSON", "ARGS"),
    Option(("-B", "--background"), "background", "number", "run asynchronously and fail after this time", "SECONDS"),
    Option(("-P", "--poll"), "poll", "number", "time between polls of a background run", "SECONDS"),
    Option(("-o", "--one-line"), "one_line", "switch", "one line of output per host"),
    Option(("-t", "--tree"), "tree", "text", "folder on the worker's machine to write results to", "FOLDER"),
    Option(("--task-timeout",), "task_timeout", "number", "limit of the task", "SECONDS"),
    Option(("--playbook-dir",), "playbook_dir", "text", "use this folder as the playbook's", "FOLDER"),
)
PLAYBOOK = (
    *SHARED,
    Option(("-t", "--tags"), "tags", "repeated", "only play tasks with these tags; repeatable", "TAGS"),
    Option(("--skip-tags",), "skip_tags", "repeated", "only play tasks without these tags; repeatable", "TAGS"),
    Option(("--start-at-task",), "start_at_task", "text", "start at the play task of this name", "NAME"),
    Option(("--force-handlers",), "force_handlers", "switch", "run handlers even when a play task fails"),
    Option(("--syntax-check",), "syntax_check", "switch", "check the syntax without executing anything"),
    Option(("--list-tasks",), "list_tasks", "switch", "list play tasks without executing them"),
    Option(("--list-tags",), "list_tags", "switch", "list tags without executing anything"),
    Option(("--step",), "step", "refused", "not available: it prompts at a terminal"),
)
TABLES: dict[Program, tuple[Option, ...]] = {"adhoc": ADHOC, "playbook": PLAYBOOK}

# Flansible's own options: long, never abbreviated, none with a name of Ansible's.
OWN = (
    *(Option((login.name,), login.field, "text", login.help, login.metavar) for login in LOGIN_OPTIONS),
    Option(("--chdir",), "chdir", "text",
           "folder on the service's machine to run in; a relative path counts from its playbook_root", "FOLDER"),
    Option(("--project",), "project", "text",
           "run at a commit of this project; --chdir, and relative paths, count from its root", "NAME"),
    Option(("--ref",), "ref", "text", "branch, tag or commit of the project (default: its own)", "REF"),
    Option(("--time-limit",), "time_limit", "number", "time limit of the run; then it is ended", "SECONDS"),
    Option(("--lock",), "lock", "repeated", "never run together with another task that names this lock; repeatable",
           "NAME"),
    Option(("--exclusive",), "exclusive", "text", "hosts: run while no other task runs on the same hosts", "WHAT"),
    Option(("--credential",), "credentials", "repeated", "use this stored secret of the service; repeatable", "NAME"),
    Option(("--queue",), "queue", "text", "run it on a worker of this queue", "NAME"),
    Option(("--on-lost",), "on_lost", "text", "if its worker dies: fail (default), or requeue to run it again",
           "WHAT"),
    Option(("--no-wait",), "no_wait", "switch", "print the task_id and exit"),
    Option(("--json",), "json", "switch", "print the results by host as JSON, and nothing else"),
)  # fmt: skip

# Ansible's options that have no request field, and why.
EXCLUDED = {
    "-h": "is answered by the client: it shows these tables",
    "--help": "is answered by the client: it shows these tables",
    "--version": "is answered by the client, with Flansible's version, without a request to a service",
    "--step": "prompts at a terminal before each play task, and a run of the service has no terminal",
}


@dataclass(frozen=True)
class ClientOptions:
    """The values of Flansible's own options: service and login, what to print, where and how to run."""

    url: str | None
    api_user: str | None
    api_password_file: str | None
    chdir: str | None
    no_wait: bool
    json: bool
    project: str | None = None
    ref: str | None = None
    time_limit: int | None = None
    lock: list[str] | None = None
    exclusive: str | None = None
    credentials: list[str] | None = None
    queue: str | None = None
    on_lost: str | None = None
    api_token_file: str | None = None
    api_ca_file: str | None = None


@dataclass(frozen=True)
class CommandLine:
    """A parsed command line. `given`: request field to value; `operands`: pattern or playbooks."""

    program: Program
    given: dict[str, Any]
    operands: list[str]
    client: ClientOptions


_OPERANDS: dict[Program, str] = {"adhoc": "pattern", "playbook": "playbook"}
_USAGE: dict[Program, str] = {
    "adhoc": "flansible adhoc PATTERN [options]",
    "playbook": "flansible playbook [options] PLAYBOOK [PLAYBOOK ...]",
}
_ABOUT: dict[Program, str] = {
    "adhoc": "Run one module on the hosts of a pattern, as `ansible` does, through a Flansible service.",
    "playbook": "Run playbooks, as `ansible-playbook` does, through a Flansible service.",
}
_NOTES = """\
The options are Ansible's. Output and errors are shown live on standard output, with colours on a terminal (NO_COLOR,
ANSIBLE_NOCOLOR and ANSIBLE_FORCE_COLOR are obeyed). ANSIBLE_* variables are sent with the request, except those that
look like a password. -k, -K and -J prompt here.

The run works on the service's machine, in the current directory or that of --chdir. Paths that exist here are sent as
absolute paths, others unchanged; with --chdir all are sent unchanged. If the service is on another machine, `adhoc`
without --chdir works in the service's playbook_root.

Ctrl-C (or SIGTERM) cancels the task and waits for its end; a second one exits at once.

exit codes: the run's own (0 success, 1 error, 2 hosts failed, 4 unreachable or a playbook that cannot be parsed, ...);
5 refused by the service, or options that cannot be sent; 1 no reply from the service; 2 wrong usage; 99 canceled;
130 exit by a second Ctrl-C; 250 timed out, lost, or failed around Ansible, with the cause on standard error.
"""


def parse(program: Program, arguments: Sequence[str]) -> CommandLine:
    """Parses a command line. --help and wrong usage exit as with Ansible; raises OptionError for a refused option."""
    ours, theirs = _split(arguments)
    client = ClientOptions(**vars(_own_parser().parse_args(ours)))
    parser = _AnsibleParser(program)
    given = vars(parser.parse_args(theirs))
    operands = given.pop(_OPERANDS[program])
    if given["forks"] is not None and given["forks"] < 1:
        parser.error("The number of processes (--forks) must be >= 1")
    return CommandLine(program, given, [operands] if isinstance(operands, str) else operands, client)


class _AnsibleParser(argparse.ArgumentParser):
    """Parses only Ansible's options, so that abbreviations mean the same as there; its help shows ours too."""

    def __init__(self, program: Program) -> None:
        super().__init__(
            prog=f"flansible {program}",
            usage=_USAGE[program],
            description=_ABOUT[program],
            epilog=_NOTES,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            add_help=False,
        )
        self.add_argument("-h", "--help", action="help", help="show this and exit")
        version = f"{self.prog} {__version__}"
        self.add_argument("--version", action="version", version=version, help="show Flansible's version and exit")
        for options in _by_group(TABLES[program]).values():
            group = self.add_argument_group(options[0].group)
            excluding: dict[str, argparse._MutuallyExclusiveGroup] = {}
            for option in options:
                place: argparse._ActionsContainer = group
                if option.excludes:
                    place = excluding.setdefault(option.excludes, group.add_mutually_exclusive_group())
                place.add_argument(*option.names, dest=option.field, help=option.help, **_settings(option))
        if program == "adhoc":
            self.add_argument("pattern", help="pattern of the hosts to run on")
        else:
            self.add_argument(
                "playbook", nargs="+", help="playbook; a relative path counts from the directory of the run"
            )

    def print_help(self, file: SupportsWrite[str] | None = None) -> None:
        whole = argparse.ArgumentParser(
            prog=self.prog,
            usage=self.usage,
            description=self.description,
            epilog=self.epilog,
            formatter_class=self.formatter_class,
            parents=[self, _own_parser()],
            add_help=False,
        )
        whole.print_help(file)


class _Refuse(argparse.Action):
    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> NoReturn:
        name = self.option_strings[-1]
        raise OptionError(f"{name} {EXCLUDED[name]}")


def _settings(option: Option) -> dict[str, Any]:
    """Returns argparse's arguments for this kind of option."""
    if option.how in ("switch", "prompt"):
        return {"action": "store_true"}
    if option.how == "count":
        return {"action": "count", "default": 0}
    if option.how == "refused":
        return {"action": _Refuse, "nargs": 0, "default": argparse.SUPPRESS}
    if option.how == "repeated":
        return {"action": "append", "metavar": option.metavar}
    return {"metavar": option.metavar, "type": int if option.how == "number" else str}


def _by_group(options: Sequence[Option]) -> dict[str, list[Option]]:
    groups: dict[str, list[Option]] = {}
    for option in options:
        groups.setdefault(option.group, []).append(option)
    return groups


def _own_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="flansible", add_help=False, allow_abbrev=False)
    group = parser.add_argument_group("Flansible's own options")
    for option in OWN:
        group.add_argument(*option.names, dest=option.field, help=option.help, **_settings(option))
    return parser


def _split(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Separates our own options from the rest, which keeps its order. After `--` there are only operands."""
    takes_value = {name: option.how != "switch" for option in OWN for name in option.names}
    ours: list[str] = []
    theirs: list[str] = []
    waiting = list(arguments)
    while waiting:
        word = waiting.pop(0)
        name, joined, _ = word.partition("=")
        if word == "--":
            theirs += [word, *waiting]
            break
        if name not in takes_value:
            theirs.append(word)
            continue
        ours.append(word)
        if takes_value[name] and not joined and waiting:
            ours.append(waiting.pop(0))
    return ours, theirs
