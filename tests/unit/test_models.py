"""Requests: strict types, both spellings, nothing unknown; records: frozen, and whole after a trip through JSON."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from flansible import models
from flansible.models import AdhocRequest, AuthorizedRun, GitRequest, PlaybookRequest, Step

NEEDED: dict[type[BaseModel], dict[str, Any]] = {
    AdhocRequest: {"module": "ping"},
    PlaybookRequest: {"playbook": "p.yml"},
    GitRequest: {"playbook_dir": "d"},
}


def make(model: type[BaseModel], **fields: Any) -> Any:
    return model.model_validate({**NEEDED[model], **fields})


@pytest.mark.parametrize("model", NEEDED)
def test_what_is_needed_is_enough(model: type[BaseModel]) -> None:
    make(model)


@pytest.mark.parametrize(("model", "field"), [(model, field) for model, needed in NEEDED.items() for field in needed])
def test_what_is_needed_is_needed(model: type[BaseModel], field: str) -> None:
    with pytest.raises(ValidationError, match=field):
        model.model_validate({key: value for key, value in NEEDED[model].items() if key != field})


@pytest.mark.parametrize("model", NEEDED)
def test_an_unknown_field_is_an_error(model: type[BaseModel]) -> None:
    with pytest.raises(ValidationError, match="extra"):
        make(model, colour="red")


def fields_by_default(default: type) -> list[tuple[type[BaseModel], str]]:
    return [
        (model, name)
        for model in NEEDED
        for name, field in model.model_fields.items()
        if isinstance(field.default, default)
    ]


@pytest.mark.parametrize(("model", "field"), fields_by_default(bool))
@pytest.mark.parametrize("value", ["false", "true", "yes", 0, 1, None, [], {}, 1.0])
def test_only_true_and_false_are_boolean(model: type[BaseModel], field: str, value: Any) -> None:
    with pytest.raises(ValidationError):
        make(model, **{field: value})


@pytest.mark.parametrize("field", ["forks", "timeout", "task_timeout", "verbose_level", "background", "poll"])
@pytest.mark.parametrize("value", ["1", 1.0, 1.5, True, -1, [], {}, ""])
def test_only_whole_numbers_in_range_are_numbers(field: str, value: Any) -> None:
    with pytest.raises(ValidationError):
        make(AdhocRequest, **{field: value})


@pytest.mark.parametrize(("field", "value"), [("forks", 0), ("verbose_level", 7), ("timeout", 10**9), ("forks", 10**9)])
def test_a_number_out_of_range_is_an_error(field: str, value: int) -> None:
    with pytest.raises(ValidationError):
        make(AdhocRequest, **{field: value})


NUMBERS = ("forks", "timeout", "task_timeout", "time_limit", "verbose_level", "background", "poll")
SECRETS = ("connection_password", "become_password", "vault_password", "private_key", "private_key_passphrase")
FREE_TEXT = ("ssh_common_args", "ssh_extra_args", "sftp_extra_args", "scp_extra_args")
# Empty ones have a meaning of their own to Ansible: `--tags ''`.
OPTION_TEXTS = ("become_method", "become_user", "remote_user", "connection", "tags", "skip_tags", "start_at_task")
OPTION_TEXTS += ("host_pattern", "host_filter", "module", "playbook")
STRUCTURED = ("module_args", "extra_vars", "extra_args", "environment", "secret_vars")
TEXT_FIELDS = [
    (model, name)
    for model in NEEDED
    for name in model.model_fields
    if name not in (*NUMBERS, *SECRETS, *FREE_TEXT, *OPTION_TEXTS, *STRUCTURED)
    and not isinstance(model.model_fields[name].default, bool)
]


@pytest.mark.parametrize(("model", "field"), TEXT_FIELDS)
@pytest.mark.parametrize("value", ["", "  ", "\t\n", 1, True, {}])
def test_no_text_is_empty_or_something_else(model: type[BaseModel], field: str, value: Any) -> None:
    with pytest.raises(ValidationError):
        make(model, **{field: value})


@pytest.mark.parametrize("field", SECRETS)
@pytest.mark.parametrize("value", ["", 1, True, [], ["x"], {"default": ""}, {"default": 1}])
def test_a_secret_is_a_text_that_is_not_empty(field: str, value: Any) -> None:
    with pytest.raises(ValidationError):
        make(AdhocRequest, **{field: value})


@pytest.mark.parametrize("field", SECRETS)
def test_a_secret_may_be_blank_but_is_never_shown(field: str) -> None:
    assert make(AdhocRequest, **{field: "  "}).secrets is not None
    request = make(PlaybookRequest, **{field: "marker-secret"})
    assert "marker-secret" not in repr(request) + repr(request.secrets)


@pytest.mark.parametrize(
    "value", [{"": "x"}, {"1A": "x"}, {"A=B": "x"}, {"A B": "x"}, {"A": 1}, {"A\n": "x"}, ["A"], "A=b"]
)
def test_the_environment_is_an_object_of_names_and_texts(value: Any) -> None:
    with pytest.raises(ValidationError):
        make(AdhocRequest, environment=value)


@pytest.mark.parametrize("field", OPTION_TEXTS)
def test_what_may_be_empty_is_a_text_all_the_same(field: str) -> None:
    model = next(model for model in NEEDED if field in model.model_fields)
    assert getattr(make(model, **{field: ""}), field) == ""
    for value in (1, True, {}):
        with pytest.raises(ValidationError):
            make(model, **{field: value})


def test_an_empty_pattern_of_hosts_is_not_the_default_one() -> None:
    assert make(AdhocRequest, host_pattern="").pattern == make(AdhocRequest, host_filter="").pattern == ""
    assert make(AdhocRequest).pattern == "localhost"


@pytest.mark.parametrize("field", ["inventory", "vault_id", "module_path"])
def test_a_list_of_texts_holds_no_empty_one(field: str) -> None:
    for value in (["x", ""], ["x", 1], ["x", ["y"]], [None]):
        with pytest.raises(ValidationError):
            make(PlaybookRequest, **{field: value})


@pytest.mark.parametrize("field", ["inventory", "playbook"])
def test_a_list_that_is_needed_is_not_empty(field: str) -> None:
    with pytest.raises(ValidationError):
        make(PlaybookRequest, **{field: []})


PAIRS = [
    (AdhocRequest, "host_pattern", "host_filter", "web"),
    (AdhocRequest, "extra_vars", "extra_args", {"a": 1}),
    (AdhocRequest, "vault_file", "vault_password_file", "v"),
    (PlaybookRequest, "extra_vars", "extra_args", [{"a": 1}]),
    (PlaybookRequest, "vault_file", "vault_password_file", "v"),
    (PlaybookRequest, "connection_password", "connection_password_file", "x"),
    (AdhocRequest, "become_password", "become_password_file", "x"),
    (AdhocRequest, "private_key", "private_key_file", "x"),
]


@pytest.mark.parametrize(("model", "name", "other", "value"), PAIRS)
def test_two_names_of_one_field_are_not_given_together(
    model: type[BaseModel], name: str, other: str, value: Any
) -> None:
    with pytest.raises(ValidationError, match=f"{name} and {other} exclude each other"):
        make(model, **{name: value, other: value})


def test_either_name_means_the_same() -> None:
    assert make(AdhocRequest, host_pattern="web").pattern == make(AdhocRequest, host_filter="web").pattern == "web"
    assert make(AdhocRequest, extra_args={"a": 1}).variables == [{"a": 1}]
    for name in ("vault_file", "vault_password_file"):
        assert make(AdhocRequest, **{name: "v"}).vault_password_files == ["v"]


def test_the_secrets_of_a_request_have_limits_in_all() -> None:
    """4 MB of them took a worker 47 seconds and 760 MB to make patterns of."""
    lines = "four\n" * 9000
    assert make(AdhocRequest, private_key=lines, connection_password="word").secrets
    for fields in (
        {"secret_vars": {"a": lines, "b": lines}},
        {"secret_vars": {"a": lines.replace("\n", "\x85")}, "vault_password": {"c": lines}},
        {"vault_password": lines, "private_key": lines},
    ):
        with pytest.raises(ValidationError, match="at most 10000 lines in all"):
            make(AdhocRequest, **fields)
    with pytest.raises(ValidationError, match="at most 1048576 characters in all"):
        make(AdhocRequest, secret_vars={f"v{number}": "x" * 65_000 for number in range(17)})


def test_without_a_pattern_it_is_localhost() -> None:
    assert make(AdhocRequest).pattern == "localhost"


def test_variables_come_in_parts_which_keep_their_order() -> None:
    request = make(PlaybookRequest, extra_vars=[{"a": 1, "b": 1}, "b=2 c=3", {}, {"b": 3}])
    assert request.variables == [{"a": 1, "b": 1}, "b=2 c=3", {"b": 3}]
    assert make(PlaybookRequest, extra_vars=[]).variables == make(PlaybookRequest).variables == []
    assert make(PlaybookRequest, extra_vars="a=1").variables == ["a=1"]


@pytest.mark.parametrize("value", [1, True, [1], [["a", 1]], [{"a": 1}, None], [{"a": 1}, [{"b": 2}]]])
def test_variables_are_objects_or_strings(value: Any) -> None:
    with pytest.raises(ValidationError):
        make(AdhocRequest, extra_vars=value)


@pytest.mark.parametrize(
    "value", [1, True, [1], ["a"], [{"arg_name": "a"}], [{"arg_name": "", "arg_value": 1}], [{"a": 1}]]
)
def test_module_args_are_an_object_a_string_or_pairs(value: Any) -> None:
    with pytest.raises(ValidationError):
        make(AdhocRequest, module_args=value)


def test_an_argument_may_be_any_json_value() -> None:
    for value in (None, 1, 2**80, 1.5, "x", [1, {"y": None}], {"z": []}):
        pairs = [{"arg_name": "a", "arg_value": value}]
        assert make(AdhocRequest, module_args=pairs).arguments == {"a": value}
        assert make(AdhocRequest, module_args={"a": value}).arguments == {"a": value}


def test_requests_and_records_are_frozen() -> None:
    request = make(AdhocRequest)
    with pytest.raises(ValidationError):
        request.module = "shell"
    step = Step(program="git", argv=("pull",), cwd="/")
    with pytest.raises(ValidationError):
        step.cwd = "/etc"  # type: ignore[misc]


def test_a_run_is_the_same_after_a_trip_through_the_store() -> None:
    variables: Any = {"quoted": 'it\'s "so"', "ü": ["🎉", {"deep": None}], "n": 2**80, "f": 0.1, "b": True}
    step = Step(
        program="ansible", argv=("-m", "ping", "--", "-x"), cwd="/d", extra_vars=(variables, "a=1"), data_only=True
    )
    run = AuthorizedRun(kind="adhoc", user="dev", summary="ü", steps=(step, step))
    assert AuthorizedRun.model_validate_json(run.model_dump_json()) == run


def test_a_run_has_at_least_one_step() -> None:
    with pytest.raises(ValidationError):
        AuthorizedRun(kind="git", user="dev", summary="", steps=())


@pytest.mark.parametrize(
    "model",
    [item for item in vars(models).values() if isinstance(item, type) and issubclass(item, BaseModel)],
    ids=lambda model: model.__name__,
)
def test_every_field_has_a_description_for_the_documentation(model: type[BaseModel]) -> None:
    internal = {"AuthorizedRun", "Step", "Secrets"}
    missing = [name for name, field in model.model_fields.items() if not field.description]
    assert missing == [] or model.__name__ in internal


LIMITED = [
    (AdhocRequest, "module", "a" * (64 * 1024 + 1)),
    (AdhocRequest, "host_pattern", "a" * (64 * 1024 + 1)),
    (AdhocRequest, "connection_password", "a" * (64 * 1024 + 1)),
    (AdhocRequest, "ssh_extra_args", "a" * (64 * 1024 + 1)),
    (AdhocRequest, "inventory", ["a"] * 1001),
    (AdhocRequest, "extra_vars", [{}] * 1001),
    (AdhocRequest, "module_args", [{"arg_name": "a", "arg_value": 1}] * 1001),
    (AdhocRequest, "environment", {f"A{number}": "" for number in range(1001)}),
    (AdhocRequest, "environment", {"A" * 256: ""}),
    (AdhocRequest, "environment", {"A": "a" * (64 * 1024 + 1)}),
    (AdhocRequest, "vault_password", {str(number): "x" for number in range(1001)}),
    (AdhocRequest, "lock", "a" * 256),
    (AdhocRequest, "lock", [str(number) for number in range(101)]),
    (AdhocRequest, "forks", 10_001),
    (AdhocRequest, "timeout", 1_000_001),
    (AdhocRequest, "time_limit", 365 * 24 * 3600 + 1),
    (AdhocRequest, "poll", 2**31),
    (AdhocRequest, "background", 2**63),
    (AdhocRequest, "task_timeout", 10**30),
    (PlaybookRequest, "tags", ["a"] * 1001),
    (GitRequest, "branch_name", "a" * (64 * 1024 + 1)),
]


@pytest.mark.parametrize(("model", "field", "value"), LIMITED, ids=lambda value: str(value)[:20])
def test_what_is_too_long_too_many_or_too_large_is_refused(model: type[BaseModel], field: str, value: Any) -> None:
    with pytest.raises(ValidationError, match=field):
        make(model, **{field: value})


def test_what_is_just_within_the_limits_is_taken() -> None:
    make(AdhocRequest, module="a" * (64 * 1024), inventory=["a"] * 100, lock=["a" * 255] * 100, forks=10_000)
    make(AdhocRequest, timeout=1_000_000, poll=365 * 24 * 3600, background=365 * 24 * 3600)
    # These are as long as the whole body may be.
    make(AdhocRequest, module_args="a" * 1_000_000, extra_vars={"a": "b" * 1_000_000})
