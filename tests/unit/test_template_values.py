"""What a launch of a template may set: everything else is an error that names it, and values stay data."""

from __future__ import annotations

import time
from typing import Any

import pytest
from pydantic import ValidationError

from flansible.authorization import launch_values
from flansible.definitions import template_checks, template_schema, template_values
from flansible.errors import InvalidRequest
from flansible.models import AuthorizedRun, ListedVariable, Step
from flansible.models.template_specs import TemplateSpec


def spec(**fields: Any) -> TemplateSpec:
    return TemplateSpec.model_validate({"kind": "playbook", "request": {"playbook": "t.yml"}, **fields})


def variable(**fields: Any) -> TemplateSpec:
    return spec(variables={"v": fields})


def refused(found: TemplateSpec, **launch: Any) -> dict[str, str]:
    with pytest.raises(InvalidRequest) as caught:
        template_values.merge(found, launch)
    return {error.field: error.message for error in caught.value.errors}


def faults(found: TemplateSpec, is_of_admin: bool = False) -> list[str]:
    return [error.field for error in template_checks.check_spec(found, is_of_admin=is_of_admin)]


DEPLOY = spec(
    request={"playbook": "t.yml", "extra_vars": {"region": "eu"}, "lock": "a", "time_limit": 60},
    open=["limit", "extra_vars.free", "secret_vars.pin"],
    variables={"version": {"pattern": "[0-9.]+", "required": True}, "key": {"secret": True}, "n": {"default": "7"}},
    lock=["b", "a"],
    time_limit=30,
    exclusive="hosts",
)


def test_a_launch_is_merged_with_its_values_apart_and_the_guards_of_the_template() -> None:
    launch = {"limit": "web1", "extra_vars": {"version": "1.2", "free": [1]}, "secret_vars": {"key": "x", "pin": "y"}}
    merged = template_values.merge(DEPLOY, launch)
    values = {"version": "1.2", "free": [1], "n": "7"}
    assert merged.values == values
    assert merged.body == {
        "playbook": "t.yml",
        "extra_vars": [{"region": "eu"}, values],
        "secret_vars": {"key": "x", "pin": "y"},
        "limit": "web1",
        "lock": ["a", "b"],
        "time_limit": 30,
        "exclusive": "hosts",
    }


def test_everything_that_is_not_open_is_named_and_nothing_is_dropped() -> None:
    launch = {
        "playbook": "other.yml",
        "tags": "x",
        "extra_args": {"version": "1"},
        "extra_vars": {"versoin": "1", "key": "x", "region": "us"},
        "secret_vars": {"version": "1", "pass": "x", "pin": 5},
    }
    assert refused(DEPLOY, **launch).keys() == {
        *("playbook", "tags", "extra_args", "extra_vars.versoin", "extra_vars.key", "extra_vars.region"),
        *("extra_vars.version", "secret_vars.version", "secret_vars.pass", "secret_vars.pin"),
    }
    assert refused(DEPLOY, extra_vars="version=1") == {
        "extra_vars": "must be an object of variables by name",
    }


# What a variable is, a value that it takes, and one that it does not.
VALUES: dict[str, tuple[dict[str, Any], Any, Any]] = {
    "a string": ({}, "x", 1),
    "an integer": ({"type": "integer"}, 5, "5"),
    "an integer, and true": ({"type": "integer"}, 1, True),
    "an integer, and a fraction": ({"type": "integer"}, 1, 1.5),
    "a number": ({"type": "number", "min": 0.5}, 0.5, 0.4),
    "a boolean": ({"type": "boolean"}, False, 0),
    "a list": ({"type": "list", "max": 1}, ["{{ x }}"], [1, 2]),
    "an object": ({"type": "object"}, {"a": 1}, ["a"]),
    "no null": ({}, "", None),
    "choices": ({"choices": ["a", "b"]}, "b", "c"),
    "choices, and true": ({"type": "integer", "choices": [1]}, 1, True),
    "choices of lists, and true": ({"type": "list", "choices": [[1, 2]]}, [1, 2], [True, 2]),
    "choices of objects, and true": (
        {"type": "object", "choices": [{"a": {"b": 1}}]},
        {"a": {"b": 1}},
        {"a": {"b": True}},
    ),
    "a pattern": ({"pattern": "[0-9.]+"}, "1.2", "1.2;x"),
    "a pattern, with anchors of its own": ({"pattern": "^[0-9.]+$"}, "1.2", "1.2\n"),
    "a pattern, and a line break in front": ({"pattern": "[0-9.]+"}, "1", "\n1"),
    "a pattern of two": ({"pattern": "a|b"}, "b", "ab"),
    "a pattern over lines": ({"pattern": "(?m)^a$"}, "a", "a\nb"),
    "a length": ({"min": 2, "max": 3}, "xyz", "x"),
}


@pytest.mark.parametrize("name", VALUES)
def test_values_are_checked_by_type_choices_pattern_and_bounds(name: str) -> None:
    declared, good, bad = VALUES[name]
    found = variable(**declared)
    assert faults(found) == []
    assert template_values.merge(found, {"extra_vars": {"v": good}}).values == {"v": good}
    assert refused(found, extra_vars={"v": bad}).keys() == {"extra_vars.v"}


def test_a_pattern_takes_no_time_that_grows_faster_than_the_value() -> None:
    found = variable(pattern="(a+)+b")
    began = time.process_time()
    assert refused(found, extra_vars={"v": "a" * 60_000}).keys() == {"extra_vars.v"}
    assert time.process_time() - began < 2


def test_a_pattern_is_not_compiled_again_for_each_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled = []
    compile_pattern = template_values.SchemaValidator
    monkeypatch.setattr(
        template_values, "SchemaValidator", lambda schema: compiled.append(schema) or compile_pattern(schema)
    )
    assert faults(variable(pattern="[a-z]+[0-9]+", choices=[f"a{number}" for number in range(1000)])) == []
    assert len(compiled) <= 2


@pytest.mark.parametrize("pattern", ["a)|(?:b", "(?x)a # c", "[", "(?=a)", "(", r"(a)\1"])
def test_a_pattern_that_could_mean_another_one_is_refused_when_it_is_written(pattern: str) -> None:
    assert faults(variable(pattern=pattern)) == ["variables.v.pattern"]


def test_a_launch_may_shorten_the_time_and_not_lengthen_it() -> None:
    found = spec(open=["time_limit"], time_limit=30)
    assert template_values.merge(found, {"time_limit": 20}).body["time_limit"] == 20
    assert refused(found, time_limit=31).keys() == {"time_limit"}
    for text in ("20", 20.5):  # left to the request's own rules, which refuse it
        assert template_values.merge(found, {"time_limit": text}).body["time_limit"] == text


TRICKS: dict[str, Any] = {
    "a template": "{{ lookup('pipe', 'id') }}",
    "a statement": "{% if 1 %}web1{% endif %}",
    "a comment": "web1{# x #}",
    "a file": "@/etc/passwd",
    "a file after a name": "web1,@/etc/passwd",
    "a template in a list": ["web1", "{{ x }}"],
}


@pytest.mark.parametrize("name", TRICKS)
def test_an_open_limit_takes_no_template_and_no_file(name: str) -> None:
    assert refused(spec(open=["limit"]), limit=TRICKS[name]).keys() == {"limit"}


@pytest.mark.parametrize("arguments", ["{{ x }}", r"cmd='\x7b\x7b x }}'", {"cmd": "{% x %}"}, {"{{ x }}": 1}])
def test_open_arguments_of_a_module_are_no_templates_however_they_are_written(arguments: Any) -> None:
    found = spec(kind="adhoc", request={"module": "command"}, open=["module_args"])
    assert refused(found, module_args=arguments).keys() == {"module_args"}


RESERVED = ("ansible_connection", "ansible_ssh_common_args", "mitogen_via", "hostvars", "playbook_dir", "inventory_dir")


@pytest.mark.parametrize("name", RESERVED)
def test_no_template_declares_or_opens_a_variable_that_decides_how_ansible_connects(name: str) -> None:
    assert faults(spec(variables={name: {}}), is_of_admin=True) == [f"variables.{name}"]
    assert faults(spec(open=[f"extra_vars.{name}"]), is_of_admin=True) == ["open[0]"]
    assert faults(spec(open=[f"secret_vars.{name}"]), is_of_admin=True) == ["open[0]"]


NOT_OPEN = ("playbook", "playbook_dir", "extra_vars", "secret_vars", "extra_args", "connection", "ssh_common_args")


@pytest.mark.parametrize("name", [*NOT_OPEN, "module_path", "private_key_file", "vault_id", "environment", "strategy"])
def test_what_decides_over_the_control_machine_cannot_be_open(name: str) -> None:
    assert faults(spec(open=[name]), is_of_admin=True) == ["open[0]"] == faults(spec(open=[name]))


def test_with_the_rights_of_admin_neither_inventory_nor_arguments_can_be_open() -> None:
    found = spec(kind="adhoc", request={"module": "command"}, open=["inventory", "module_args"])
    assert faults(found, is_of_admin=True) == ["open[0]", "open[1]"] and faults(found) == []


FAULTY: dict[str, tuple[dict[str, Any], str]] = {
    "a secret in the request": ({"request": {"playbook": "t.yml", "become_password": "x"}}, "request.become_password"),
    "a default of a secret": ({"variables": {"v": {"secret": True, "default": "x"}}}, "variables.v.default"),
    "a secret number": ({"variables": {"v": {"secret": True, "type": "integer"}}}, "variables.v.type"),
    "a default that does not fit": ({"variables": {"v": {"pattern": "a", "default": "b"}}}, "variables.v.default"),
    "a choice that does not fit": (
        {"variables": {"v": {"type": "integer", "choices": [1, "2"]}}},
        "variables.v.choices[1]",
    ),
    "secrets with retries": (
        {"variables": {"v": {"secret": True}}, "retry": {"hosts": "failed"}},
        "variables.v.secret",
    ),
    "an open secret with retries": ({"open": ["become_password"], "retry": {"hosts": "failed"}}, "open[0]"),
    "choices and where they come from": (
        {"variables": {"v": {"choices": ["a"], "choices_from": {"group": "web"}}}},
        "variables.v.choices_from",
    ),
    "numbers from tags": (
        {"variables": {"v": {"type": "integer", "choices_from": {"group": "web"}}}},
        "variables.v.choices_from",
    ),
    "tags without a project": (
        {"variables": {"v": {"choices_from": {"tags": "v*"}}}},
        "variables.v.choices_from.tags",
    ),
    "exclusive hosts of git": ({"kind": "git", "request": {"playbook_dir": "."}, "exclusive": "hosts"}, "exclusive"),
    "hosts of git": ({"kind": "git", "request": {"playbook_dir": "."}, "max_hosts": 3}, "max_hosts"),
}


@pytest.mark.parametrize("name", FAULTY)
def test_a_template_that_makes_no_sense_is_refused(name: str) -> None:
    fields, where = FAULTY[name]
    assert faults(spec(**fields)) == [where]


@pytest.mark.parametrize(
    "fields",
    [
        *({"open": ["a b"]}, {"open": ["extra_vars.a.b"]}, {"kind": "x"}, {"retry": {"times": 2}}, {"nonsense": 1}),
        *({"variables": {name: {}}} for name in ("a-b", "a.b", "ａ", "")),
        *({"variables": {"v": {"type": "number", "min": size}}} for size in ("NaN", "Infinity", "1e400")),
        {"variables": {"v": {"max": "-inf"}}},
    ],
)
def test_a_template_of_another_form_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        spec(**fields)


def test_the_schema_says_what_a_launch_may_set_and_needs() -> None:
    schema = template_schema.launch_schema(DEPLOY)
    assert schema["properties"].keys() == {"limit", "extra_vars", "secret_vars"} and not schema["additionalProperties"]
    assert schema["required"] == ["extra_vars"] and schema["properties"]["extra_vars"]["required"] == ["version"]
    variables = schema["properties"]["extra_vars"]["properties"]
    assert variables == {
        "version": {"type": "string", "pattern": "^(?:[0-9.]+)$"},
        "n": {"type": "string", "default": "7"},
        "free": {},
    }
    assert schema["properties"]["secret_vars"]["properties"]["key"]["writeOnly"] is True


def test_what_a_role_says_about_a_variable_is_not_written_twice() -> None:
    found = spec(variables={"port": {}, "mode": {"description": "mine"}, "other": {}})
    listed = [
        ListedVariable(name="port", source="argument_specs", type="int", required=True, default=80),
        ListedVariable(
            name="mode", source="argument_specs", type="str", required=False, choices=["a", "b"], description="theirs"
        ),
        ListedVariable(name="other", source="vars", type="int", required=False, default=5),
    ]
    filled = template_schema.with_listed(found, listed).variables
    assert (filled["port"].type, filled["port"].default) == ("integer", 80)
    assert (filled["mode"].choices, filled["mode"].description) == (["a", "b"], "mine")
    assert filled["other"] == found.variables["other"], "a value that a play sets is no declaration"


@pytest.mark.parametrize(
    "declared",
    [
        {"type": "string"},
        {"pattern": "[a-z]+"},
        {"choices": ["a", "b"]},
        {"choices_from": {"group": "web"}},
        {"default": "a"},
        {"default": ""},
        {"secret": True},
    ],
)
def test_a_role_changes_no_type_that_the_template_relies_on(declared: dict[str, Any]) -> None:
    found = spec(variables={"v": declared})
    stored = TemplateSpec.model_validate(found.model_dump(mode="json", exclude_unset=True))
    listed = [ListedVariable(name="v", source="argument_specs", type="dict", required=False, choices=[{}], default={})]
    filled = template_schema.with_listed(stored, listed).variables["v"]
    assert filled == found.variables["v"]


def run_of(step: Step) -> AuthorizedRun:
    return AuthorizedRun(kind="playbook", user="a", summary="a", steps=(step,))


def test_values_are_taken_off_the_command_line_of_admin_and_the_variables_of_others() -> None:
    values = {"v": "{{ x }}"}
    words = ('--extra-vars={"a": 1}', '--extra-vars={"v": "{{ x }}"}', "--", '--extra-vars={"v": "{{ x }}"}')
    of_admin = launch_values.set_apart(run_of(Step(program="ansible", argv=words, cwd="/")), values).steps[0]
    assert of_admin.argv == (words[0], *words[2:]) and of_admin.launch_vars == values
    other = Step(program="ansible", argv=("--", "x"), cwd="/", extra_vars=({"a": 1}, values), data_only=True)
    of_other = launch_values.set_apart(run_of(other), values).steps[0]
    assert of_other.extra_vars == ({"a": 1},) and of_other.launch_vars == values
    with pytest.raises(ValueError, match="not the last"):
        launch_values.set_apart(run_of(Step(program="ansible", argv=words, cwd="/")), {"v": 1})


def test_of_thousands_of_fields_that_are_not_open_a_hundred_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []
    words = template_values._open_words

    def counted(found: TemplateSpec) -> str:
        made.append(words(found))
        return made[-1]

    monkeypatch.setattr(template_values, "_open_words", counted)
    names = {f"name{number}": 0 for number in range(10_000)}
    found = spec(open=[f"extra_vars.{'x' * 100}{number}" for number in range(1000)])
    for launch in (names, {"extra_vars": names}, {"secret_vars": names}):
        made.clear()
        with pytest.raises(InvalidRequest) as caught:
            template_values.merge(found, launch)
        assert len(caught.value.errors) == 100 and len(made) == 1
        assert max(len(error.message) for error in caught.value.errors) == 2000
