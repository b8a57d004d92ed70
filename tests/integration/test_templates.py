"""Templates over HTTP, with a real store and database, and without a worker: who may launch, and what comes of it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest

from flansible.authorization import isolation
from flansible.authorization.isolation import Isolation
from flansible.config import Settings
from flansible.errors import (
    BadGateway,
    BrokerUnavailable,
    SealError,
    StoreUnavailable,
    TooManyRequests,
    Unavailable,
)
from flansible.models import AuthorizedRun, State, Step
from flansible.web import retries, template_guards, template_launch
from flansible.web.context import WebContext
from flansible.web.preview_run import PreviewResult
from flansible.web.rights_watcher import RightsWatcher
from flansible.web.task_launch import Launched, MakeEvent
from flansible.web.template_launch import TemplateLaunch
from tests.helpers.launching import DEPLOY, USERS, VALUES, Site
from tests.helpers.redis_server import RedisServer

pytestmark = pytest.mark.usefixtures("broker")

NOT_FOUND = (404, "definition_not_found", set[str]())


@pytest.fixture
def site(make_settings: Callable[..., Settings], redis_url: str, history_url: str) -> Iterator[Site]:
    with Site.open(make_settings, redis_url, history_url) as made:
        yield made


def test_a_launch_has_the_rights_of_the_owner_and_is_the_task_of_who_launched_it(site: Site) -> None:
    written = site.template()
    task_id = site.launch()
    status = site.get(f"ansibletaskstatus/{task_id}")
    found = {name: status[name] for name in ("user", "run_as", "trigger", "template", "summary")}
    assert found == {
        "user": "portal",
        "run_as": "dev",
        "trigger": "api",
        "template": "deploy",
        "summary": f"portal: playbook t.yml in {site.settings.playbook_root}",
    }
    run = site.run(task_id)
    assert run.principal == "dev" and run.confinement is not None
    assert run.confinement.inventories == (str(site.settings.base_dir / "dev"),)
    assert run.steps[0].launch_vars == {"version": "1.2"} and run.steps[0].extra_vars == ()
    assert run.request["extra_vars"] == [{"version": "1.2"}]
    assert [task["task_id"] for task in site.get("ansibletasks?template=deploy")["tasks"]] == [task_id]
    site.template(description="another")
    assert site.get(f"ansibletaskstatus/{site.launch()}")["template_digest"] != status["template_digest"]
    assert written["owner"] == "dev"


def test_of_a_template_of_admin_the_values_are_on_no_command_line(site: Site) -> None:
    site.template("admin", request={**DEPLOY["request"], "extra_vars": {"own": "{{ 1 + 1 }}"}})
    step = site.run(site.launch()).steps[0]
    assert step.launch_vars == {"version": "1.2"}
    assert [word for word in step.argv if "extra-vars" in word] == ['--extra-vars={"own": "{{ 1 + 1 }}"}']


def test_who_may_not_launch_gets_what_there_is_for_none_and_who_may_may_nothing_else(site: Site) -> None:
    site.template()
    assert site.refusal("nobody") == NOT_FOUND
    assert site.refusal("eve") == NOT_FOUND, "who reads all is not who may launch"
    none = site.post("templates/none/launch", VALUES, "portal").get_json()
    assert none["code"] == NOT_FOUND[1]
    assert site.get("templates/deploy", "nobody")["code"] == NOT_FOUND[1]
    for user in ("portal", "pat", "dev", "admin"):
        assert site.get("templates/deploy", user)["may_launch"] is True
        site.launch(user)
    assert site.get("templates/deploy", "eve")["may_launch"] is False
    inventory = str(site.settings.base_dir / "dev")
    same = site.post("ansibleplaybook", {"playbook": "t.yml", "inventory": inventory})
    assert (same.status_code, same.get_json()["code"]) == (403, "inventory_forbidden")
    assert site.put("templates/mine", DEPLOY, "portal", 403).get_json()["code"] == "may_not_define"


def test_who_launches_names_no_credential_that_only_the_owner_may_use(site: Site) -> None:
    for name in ("own", "other"):
        site.put(f"credentials/{name}", {"kind": "become", "password": "marker-of-a-secret"}, "admin")
    site.template("admin", request={**DEPLOY["request"], "credentials": ["own"]}, open=["credentials"])
    task_id = site.launch()
    assert site.run(task_id).credentials == ("own",)
    site.launch(credentials=["own"])
    assert site.refusal(credentials=["other"])[0] == 403
    assert site.refusal(credentials=["none"])[:2] == site.refusal(credentials=["other"])[:2]
    site.write_users(**{**USERS, "portal": {"inventories": [], "credentials": ["other"]}})
    assert site.run(site.launch(credentials=["other"])).credentials == ("other",)


def test_a_credential_of_who_launches_sets_nothing_that_is_not_open(site: Site) -> None:
    site.write_users(**{**USERS, "portal": {"inventories": [], "may_define": ["credentials"], "credentials": ["of-*"]}})
    secret = "marker-of-a-secret"
    specs: dict[str, dict[str, Any]] = {
        "become": {"kind": "become", "password": secret},
        "ssh": {"kind": "ssh", "password": secret},
        "token": {"kind": "http", "token": secret, "variable": "place"},
        "environment": {"kind": "environment", "variables": {"HTTP_PROXY": "http://127.0.0.1"}},
        "postgres": {"kind": "become", "password": secret, "user": "postgres"},
        "root": {"kind": "ssh", "password": secret, "user": "root"},
        "shell": {"kind": "become", "password": secret, "user": "root;id"},
    }
    for name, spec in specs.items():
        site.put(f"credentials/{name}", spec, "portal")
        site.put(f"credentials/of-{name}", spec, "admin")
    site.template("admin", open=["credentials", "become"])
    for name in specs:
        site.launch(credentials=[f"of-{name}"], become=True)
    for name in ("become", "ssh"):
        site.launch(credentials=[name], become=True)
    for name in ("token", "environment", "postgres", "root", "shell"):
        found = site.refusal(credentials=[name], become=True)
        assert (found[0], found[2]) == (400, {"credentials[0]"}), name
    users = {**DEPLOY["request"], "remote_user": "deploy", "become_user": "www"}
    site.template("admin", open=["credentials", "secret_vars.place"], request=users)
    for name in ("token", "postgres", "root"):
        site.launch(credentials=[name])
    assert site.refusal(credentials=["shell"])[0] == 403, "no plain name, whether it counts or not"


def test_what_the_templates_owner_could_have_written_a_credential_of_theirs_may_set(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The user of `run_as` has not written the template."""
    monkeypatch.setattr(isolation, "for_user", lambda *_: Isolation("bwrap"))
    entry = {"may_define": ["credentials", "templates"], "credentials": ["*"], "environment": ["HTTP_PROXY"]}
    portal = {"inventories": [], "credentials": ["*"]}
    site.write_users(**{**USERS, "portal": portal, "dev": {**USERS["dev"], **entry}})
    environment = {"kind": "environment", "variables": {"HTTP_PROXY": "http://127.0.0.1"}}
    for owner in ("dev", "admin"):
        site.put(f"credentials/of-{owner}", environment, owner)
    site.template("dev", open=["credentials"])
    for owner in ("dev", "admin"):
        site.launch(credentials=[f"of-{owner}"])
    site.template("admin", open=["credentials"], run_as="dev")
    site.launch(credentials=["of-admin"])
    assert site.refusal(credentials=["of-dev"])[2] == {"credentials[0]"}


def test_what_is_read_can_be_sent_back_and_changes_nothing(site: Site) -> None:
    site.template()
    read = site.get("templates/deploy", "dev")
    assert read["variables"] == DEPLOY["variables"] and read["allow"] == DEPLOY["allow"]
    added = {*("name", "owner", "set", "created_at", "updated_at", "etag", "sealed", "may_launch", "launch_schema")}
    added |= {"choices_problems"}
    body = {name: value for name, value in read.items() if name not in added}
    assert site.put("templates/deploy", body, "dev", 200).get_json()["variables"] == DEPLOY["variables"]


def test_what_a_launch_may_not_set_is_named(site: Site) -> None:
    site.template(open=["limit"])
    assert site.refusal(inventory="/etc", tags="x", extra_vars={"version": "1", "x": 1}) == (
        *(400, "invalid_field"),
        {"inventory", "tags", "extra_vars.x"},
    )
    assert site.refusal(extra_vars={"version": "{{ lookup('pipe', 'id') }}"})[2] == {"extra_vars.version"}
    assert site.refusal(limit="{{ x }}")[2] == {"limit"}
    assert site.get("templates/deploy")["launch_schema"]["properties"].keys() == {"limit", "extra_vars"}
    site.template(open=["time_limit"], time_limit=30)
    assert site.refusal(time_limit="20")[2] == {"time_limit"} == site.refusal(time_limit=20.5)[2]


def test_values_are_apart_from_the_request_wherever_a_guard_looks_at_the_hosts(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[Step] = []

    def preview(run: AuthorizedRun) -> PreviewResult:
        looked.append(run.steps[-1])
        hosts = ["web1"] if any("limit" in word for word in run.steps[-1].argv) else ["web1", "web2"]
        return PreviewResult(content={"plays": [{"hosts": hosts}]})

    monkeypatch.setattr(template_guards, "run_preview", preview)
    values = {"version": "{{ lookup('pipe', 'id') }}"}
    for owner in ("admin", "dev"):
        site.template(owner, f"of-{owner}", open=["limit"], require_limit=True, variables={"version": {}})
        site.launch(name=f"of-{owner}", limit="web1*", extra_vars=values)
    assert [step.launch_vars for step in looked] == [values] * 4
    assert "lookup" not in str([(step.argv, step.extra_vars) for step in looked])


def test_it_runs_with_the_rights_that_the_owner_has_when_it_is_launched(site: Site) -> None:
    site.template()
    queued = site.launch()
    watcher = RightsWatcher(site.context)
    watcher.tick()
    site.write_users(**{**USERS, "dev": {"inventories": [], "may_define": ["templates"]}})
    assert site.refusal()[:2] == (403, "inventory_forbidden")
    watcher.tick()
    assert site.get(f"ansibletaskstatus/{queued}")["state"] == "canceled"
    site.write_users(**{name: entry for name, entry in USERS.items() if name != "dev"})
    assert site.refusal()[:2] == (403, "rights_lost")


def test_only_admin_sets_run_as_and_whoever_writes_a_template_last_owns_it(site: Site) -> None:
    body = {**DEPLOY, "request": {"playbook": "t.yml", "inventory": str(site.settings.base_dir / "dev")}}
    refused = site.put("templates/deploy", {**body, "run_as": "admin"}, "dev", 403)
    assert refused.get_json()["code"] == "run_as_forbidden"
    site.put("templates/deploy", {**body, "run_as": "nobody"}, "admin", 403)
    unknown = site.put("templates/deploy", {**body, "run_as": "who"}, "admin", 400)
    assert [error["field"] for error in unknown.get_json()["errors"]] == ["run_as"]
    site.put("templates/deploy", {**body, "run_as": "dev"}, "admin", 201)
    assert site.run(site.launch()).principal == "dev"
    site.put("templates/deploy", body, "dev", 403)
    site.put("templates/deploy", body, "admin", 200)
    assert site.run(site.launch()).principal == "admin"


def test_run_as_ends_with_the_account_of_who_set_it(site: Site) -> None:
    site.template("admin", run_as="dev")
    assert site.run(site.launch()).principal == "dev"
    document = json.loads(site.settings.rbac_file.read_text())
    document["rbac"] = [entry for entry in document["rbac"] if entry["user"] != "admin"]
    site.settings.rbac_file.write_text(json.dumps(document))
    assert site.refusal()[:2] == (403, "rights_lost")


@pytest.mark.parametrize(
    ("changes", "status", "field"),
    [
        ({"request": {"playbook": "t.yml", "inventory": "/etc"}}, 403, "inventory"),
        ({"request": {"playbook": "t.yml", "taags": "x"}}, 400, "request.taags"),
        ({"request": {}}, 400, "request.playbook"),
        ({"open": ["connection"]}, 400, "open[0]"),
        ({"variables": {"v": {"pattern": "["}}}, 400, "variables.v.pattern"),
        ({"kind": "tower"}, 400, "kind"),
    ],
)
def test_a_template_is_checked_when_it_is_written(site: Site, changes: dict[str, Any], status: int, field: str) -> None:
    reply = site.put("templates/deploy", {**DEPLOY, **changes}, "dev", status)
    assert field in {error["field"] for error in reply.get_json()["errors"]}
    definitions = [{"kind": "templates", "name": "deploy", "spec": {**DEPLOY, **changes}}]
    applied = site.post("apply", {"definitions": definitions}, "dev")
    assert applied.status_code == status
    if status == 400:
        assert f"definitions[0].spec.{field}" in {error["field"] for error in applied.get_json()["errors"]}


def test_a_repeated_launch_with_the_same_key_is_the_same_task(site: Site) -> None:
    site.template()
    path = "templates/deploy/launch"
    first = site.post(path, VALUES, Idempotency_Key="k")
    again = site.post(path, VALUES, Idempotency_Key="k")
    assert again.get_json() == first.get_json() and again.headers["Idempotency-Replayed"] == "true"
    other = site.post(path, {"extra_vars": {"version": "2"}}, Idempotency_Key="k")
    assert (other.status_code, other.get_json()["code"]) == (409, "idempotency_key_reused")


def test_secret_variables_are_sealed_and_in_no_record(site: Site) -> None:
    site.template(variables={"pin": {"secret": True, "required": True}}, open=[])
    reply = site.post("templates/deploy/launch", {"secret_vars": {"pin": "marker-of-a-secret"}})
    task_id = reply.get_json()["task_id"]
    sealed = site.context.store.secrets(task_id)
    assert sealed is not None and site.context.sealer.open(sealed).variables == {"pin": "marker-of-a-secret"}
    assert "marker-of-a-secret" not in site.run(task_id).model_dump_json()
    assert site.refusal(secret_vars={"pin": "x"}, extra_vars={"pin": "y"})[2] == {"extra_vars.pin"}


def test_the_limits_of_who_launches_count_and_not_those_of_the_owner(site: Site) -> None:
    site.template()
    site.write_users(**{**USERS, "portal": {"inventories": [], "limits": {"queued": 1, "running": 3}}})
    task_id = site.launch()
    assert (site.run(task_id).max_queued, site.run(task_id).max_running) == (1, 3)
    assert site.refusal()[:2] == (429, "too_many_queued")
    site.launch("pat")


def test_no_more_than_at_most_run_at_the_same_time(site: Site) -> None:
    site.template(at_most=2, lock="db")
    tasks = [site.launch() for _ in range(4)]
    locks = [set(site.run(task_id).locks) for task_id in tasks]
    assert all("db" in found and len(found) == 2 for found in locks)
    assert len({lock for found in locks for lock in found}) == 3


def test_the_hosts_that_failed_are_tried_again_as_often_as_the_template_says(site: Site) -> None:
    site.template("dev", retry={"hosts": "failed", "times": 1})
    first = site.launch()
    site.end(first, State.FAILED, web1={"failures": 1}, web2={"ok": 3}, web3={"unreachable": 1})
    for _ in range(2):  # as two web processes do
        with site.app.app_context():
            retries.start_due(site.context)
    [second] = [task for task in site.get("ansibletasks?template=deploy")["tasks"] if task["task_id"] != first]
    assert (second["retry_of"], second["trigger"], second["hosts"], second["user"]) == (
        *(first, "retry", "web1,web3"),
        "portal",
    )
    assert site.run(second["task_id"]).steps[0].launch_vars == {"version": "1.2"}
    site.end(second["task_id"], State.FAILED, web1={"failures": 1})
    with site.app.app_context():
        retries.start_due(site.context)
    assert len(site.get("ansibletasks?template=deploy")["tasks"]) == 2


def fail(site: Site, name: str = "deploy", user: str = "portal") -> str:
    """Has a launch of a template fail; returns its id."""
    task_id = site.launch(user, name)
    site.end(task_id, State.FAILED, web1={"failures": 1})
    return task_id


def start_retries(site: Site) -> None:
    with site.app.app_context():
        retries.start_due(site.context)


def retried(site: Site) -> set[str]:
    tasks = site.get("ansibletasks?limit=1000", "admin")["tasks"]
    return {task["retry_of"] for task in tasks if task.get("retry_of")}


def be_due(server: RedisServer, task_id: str) -> None:
    client = server.client()
    client.zadd("flansible:retries", {task_id: 0}, xx=True)
    client.close()


def test_retries_that_a_freeze_holds_let_others_pass_and_start_after_it(
    site: Site, shared_redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retries, "_AT_ONCE", 2)
    site.template(retry={"hosts": "failed"})
    site.template(name="other", retry={"hosts": "failed"})
    frozen = [fail(site), fail(site, user="admin")]
    passing = fail(site, "other")
    freeze = {"start": "2020-01-01T00:00", "end": "2999-01-01T00:00", "timezone": "UTC", "templates": ["deploy"]}
    site.put("freezes/now", freeze, "admin")
    start_retries(site)
    start_retries(site)
    assert retried(site) == {passing}
    site.client.delete("/api/freezes/now", auth=("admin", "secret"))
    start_retries(site)
    assert retried(site) == {passing}, "each is looked at once a minute"
    be_due(shared_redis, frozen[0])
    start_retries(site)
    assert retried(site) == {passing, frozen[0]}


LATER = [
    *(Unavailable("no worker"), BrokerUnavailable("away"), StoreUnavailable("away")),
    *(BadGateway("no answer"), TooManyRequests("your queue is full")),
]


@pytest.mark.parametrize("error", LATER, ids=repr)
def test_a_retry_that_cannot_start_now_is_tried_once_a_minute_and_given_up_after_a_day(
    site: Site,
    shared_redis: RedisServer,
    error: Exception,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    site.template(retry={"hosts": "failed"})
    task_id, launches = fail(site), []

    def launch(*_: Any) -> None:
        launches.append(1)
        raise error

    monkeypatch.setattr(template_launch, "launch", launch)
    for _ in range(3):
        start_retries(site)
    assert len(launches) == 1
    be_due(shared_redis, task_id)
    start_retries(site)
    assert len(launches) == 2
    monkeypatch.setattr(retries, "_GIVEN_UP", timedelta())
    be_due(shared_redis, task_id)
    start_retries(site)
    assert f"task {task_id} is not retried, after a day" in caplog.text
    be_due(shared_redis, task_id)
    start_retries(site)
    assert len(launches) == 3


def test_a_retry_that_raises_ends_and_holds_up_no_other(
    site: Site, shared_redis: RedisServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    site.template(retry={"hosts": "failed"})
    site.template(name="other", retry={"hosts": "failed"})
    first, second = fail(site), fail(site, "other")
    launch = template_launch.launch

    def failing(context: WebContext, wanted: TemplateLaunch, event: MakeEvent) -> Launched:
        if wanted.name == "deploy":
            raise SealError("another key")
        return launch(context, wanted, event)

    monkeypatch.setattr(template_launch, "launch", failing)
    start_retries(site)
    assert retried(site) == {second} and f"task {first} is not retried" in caplog.text
    be_due(shared_redis, first)
    assert site.context.store.take_retry(60) is None


@pytest.mark.parametrize(
    ("which", "state", "stats"),
    [
        ("unreachable", State.FAILED, {"web1": {"failures": 1}}),
        ("failed", State.SUCCEEDED, {"web1": {"ok": 1}}),
        ("failed", State.CANCELED, {"web1": {"failures": 1}}),
        ("failed", State.FAILED, {"all": {"failures": 1}, "~.*": {"failures": 1}, "a,b": {"failures": 1}}),
    ],
)
def test_what_has_no_host_to_try_again_is_not_retried(
    site: Site, which: str, state: State, stats: dict[str, dict[str, int]]
) -> None:
    site.template("dev", retry={"hosts": which})
    site.end(site.launch(), state, **stats)
    with site.app.app_context():
        retries.start_due(site.context)
    assert len(site.get("ansibletasks?template=deploy")["tasks"]) == 1
    assert site.context.store.take_retry(60) is None
