"""Authentication by password, token and login function with a real Redis; login throttling, and audit lines."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.security import generate_password_hash
from werkzeug.test import TestResponse

from flansible.audit import verify
from flansible.audit.throttle import AuditThrottle
from flansible.config import Settings
from flansible.errors import ConfigurationError
from flansible.identity import tokens
from flansible.identity.tokens import Scope
from flansible.store import LoginLimits, LoginThrottle, Store
from flansible.web import create_app
from tests.helpers.redis_server import RedisServer
from tests.helpers.waiting import eventually

pytestmark = pytest.mark.usefixtures("broker")

MARKER = "marker-password"
ADMIN, DEV = ("admin", "root"), ("dev", "secret")
TASKS = "/api/ansibletasks"
COMMAND = "/api/ansiblecommand"
PING = {"module": "ping"}


class Site:
    """A web app with a Redis, and its files."""

    def __init__(self, app: Flask) -> None:
        self.app = app
        self.settings: Settings = app.extensions["flansible"].settings

    def get(self, auth: tuple[str, str] | None = None, path: str = TASKS, address: str = "10.0.0.1") -> TestResponse:
        return self.client(address).get(path, auth=auth)

    def client(self, address: str = "10.0.0.1") -> FlaskClient:
        client = self.app.test_client()
        client.environ_base["REMOTE_ADDR"] = address
        return client

    def bearer(self, text: str, path: str = TASKS, method: str = "GET", **more: Any) -> TestResponse:
        return self.client().open(path, method=method, headers={"Authorization": f"Bearer {text}"}, **more)

    def token(self, user: str = "admin", scope: Scope = "run", expires: datetime | None = None) -> str:
        made = tokens.make(user, scope, expires, datetime.now(UTC))
        tokens.add(self.settings.token_file, made.token)
        return made.text

    def users(self, **passwords: str) -> None:
        entries = [{"user": name, "password": password} for name, password in passwords.items()]
        self.settings.rbac_file.write_text(json.dumps({"rbac": entries}))

    def limit(self, limits: LoginLimits) -> None:
        context = self.app.extensions["flansible"]
        self.app.extensions["flansible"] = replace(context, login_throttle=LoginThrottle(context.store, limits))

    def log(self, *events: str) -> list[dict[str, Any]]:
        """Returns the lines of the audit log of these events."""
        lines = [json.loads(line) for line in self.settings.audit_file.read_text().splitlines()]
        return [line for line in lines if not events or line["event"] in events]

    def verified(self) -> bool:
        key = verify.read_key(self.settings.secret_key_file)
        found = verify.verify([self.settings.audit_file], self.settings.audit_file, key)
        return isinstance(found, verify.Verified)


@pytest.fixture
def make_site(make_settings: Callable[..., Settings], redis_url: str) -> Iterator[Callable[..., Site]]:
    made: list[Site] = []

    def make(**changes: Any) -> Site:
        urls = {"CELERY_BROKER_URL": redis_url, "CELERY_RESULT_BACKEND": redis_url, "audit_stdout": False}
        settings = make_settings(**{**urls, **changes})
        settings.playbook_root.mkdir(exist_ok=True)
        users = [{"user": name, "password": password} for name, password in (ADMIN, DEV)]
        settings.rbac_file.write_text(json.dumps({"rbac": users}))
        made.append(Site(create_app(settings)))
        return made[-1]

    yield make
    for site in made:
        site.app.extensions["flansible"].store.close()


@pytest.fixture
def site(make_site: Callable[..., Site]) -> Site:
    return make_site()


def code(reply: TestResponse) -> tuple[int, str]:
    return reply.status_code, reply.get_json()["code"]


NO = (401, "not_authenticated")
LOCKED = (429, "too_many_logins")

# Tokens


def test_a_token_is_as_good_as_the_password_of_its_user(site: Site) -> None:
    assert site.bearer(site.token()).status_code == 200
    assert site.client().get(TASKS, headers={"Authorization": f"bearer {site.token('dev')}"}).status_code == 200


def test_a_token_that_is_none_is_refused_in_the_same_words_whatever_is_wrong(site: Site) -> None:
    revoked, late, orphan = site.token(), site.token(expires=datetime.now(UTC) - timedelta(seconds=1)), site.token("ex")
    good = site.token()
    assert site.bearer(revoked).status_code == 200
    tokens.remove(site.settings.token_file, revoked.split("_")[1])
    wrong = [revoked, late, orphan, good[:-1], good + "0", "x", "", f"flansible_{'0' * 12}_{'0' * 64}"]
    replies = [site.bearer(text) for text in wrong] + [site.get(("admin", "wrong")), site.get(("nobody", "wrong"))]
    assert {code(reply) for reply in replies} == {NO}
    assert {reply.get_json()["message"] for reply in replies} == {
        "This user and password, or this token, are not accepted."
    }
    assert len({reply.get_data() for reply in replies}) == 1
    without = site.client().get(TASKS)
    assert code(without) == NO and without.get_json()["message"].startswith("Give a user and password by HTTP Basic")
    assert all(reply.headers.getlist("WWW-Authenticate")[0].startswith("Basic ") for reply in replies)
    assert all(reply.headers.getlist("WWW-Authenticate")[1].startswith("Bearer ") for reply in replies)


def test_a_user_who_is_gone_takes_the_tokens_along(site: Site) -> None:
    text = site.token("dev")
    assert site.bearer(text).status_code == 200
    site.users(admin="root")
    assert code(site.bearer(text)) == NO


def test_a_revoked_token_is_refused_at_once_by_every_process(make_site: Callable[..., Site]) -> None:
    """Two apps over the same files: the web processes share no memory either."""
    one, other = make_site(), make_site()
    text = one.token()
    assert [each.bearer(text).status_code for each in (one, other)] == [200, 200]
    tokens.remove(one.settings.token_file, text.split("_")[1])
    assert [each.bearer(text).status_code for each in (one, other)] == [401, 401]


def test_a_token_for_reading_starts_and_ends_nothing(site: Site) -> None:
    text = site.token(scope="read")
    assert site.bearer(text).status_code == 200
    assert site.bearer(text, method="HEAD").status_code == 200
    for path in (COMMAND, "/api/ansibleplaybook", "/api/git", "/api/ansibletaskcancel/x"):
        assert code(site.bearer(text, path, "POST", json=PING)) == (403, "scope_forbidden")
    reading = "/api/listinventories"
    assert site.bearer(text, reading).status_code == 200
    # An inventory may be a program, which a read of its hosts starts.
    assert code(site.bearer(text, f"{reading}?inventory=x")) == (403, "scope_forbidden")
    [refused, *_] = site.log("refusal")
    assert (refused["user"], refused["code"], refused["token"]) == ("admin", "scope_forbidden", text.split("_")[1])
    assert site.bearer(site.token(), COMMAND, "POST", json=PING).status_code == 202


def test_health_shows_its_details_to_a_token_of_admin(site: Site) -> None:
    assert "Redis takes writes" in site.bearer(site.token(), "/api/health").get_data(as_text=True)
    assert "Redis takes writes" not in site.bearer(site.token("dev"), "/api/health").get_data(as_text=True)


# Wrong passwords


def test_too_many_wrong_passwords_close_the_door_for_the_right_one_too(site: Site) -> None:
    began = time.monotonic()
    assert [code(site.get(("admin", f"wrong{n}"))) for n in range(10)] == [NO] * 10
    reply = site.get(ADMIN)
    assert code(reply) == LOCKED
    assert 299 - (time.monotonic() - began) <= int(reply.headers["Retry-After"]) <= 300, "from the first one on"
    assert f"in {reply.headers['Retry-After']} seconds" in reply.get_json()["message"]
    assert site.get(DEV).status_code == 200, "another user from there"
    assert site.get(ADMIN, address="10.0.0.2").status_code == 200, "the same user from elsewhere"
    assert site.bearer(site.token()).status_code == 200, "and a token"


def test_the_door_is_the_same_for_all_processes(make_site: Callable[..., Site]) -> None:
    one, other = make_site(login_failures=4), make_site(login_failures=4)
    for n in range(2):
        assert [code(each.get(("admin", f"wrong{n}"))) for each in (one, other)] == [NO, NO]
    assert [code(each.get(ADMIN)) for each in (one, other)] == [LOCKED, LOCKED]


def test_who_is_known_is_not_locked_out_by_who_guesses(site: Site) -> None:
    assert site.get(ADMIN).status_code == 200
    site.limit(LoginLimits(3, 3, 3))
    assert [code(site.get(("admin", f"wrong{n}"))) for n in range(5)] == [NO] * 3 + [LOCKED] * 2
    assert site.get(ADMIN).status_code == 200


def test_the_door_opens_when_the_time_is_over(site: Site, shared_redis: RedisServer) -> None:
    site.limit(LoginLimits(2, 0, 0, window_seconds=120))
    for n in range(2):
        site.get(("admin", f"wrong{n}"))
    assert code(site.get(ADMIN)) == LOCKED
    client = shared_redis.client()
    for key in client.keys("flansible:logins:*"):
        assert 0 < int(client.pttl(key)) <= 120_000
        client.pexpire(key, 1)  # as if that time were over
    client.close()
    eventually(lambda: site.get(ADMIN).status_code == 200, 30)


def test_a_user_is_counted_from_everywhere_and_an_address_for_everybody(site: Site) -> None:
    site.limit(LoginLimits(100, 3, 100))
    assert [code(site.get(("admin", "x"), address=f"10.0.1.{n}")) for n in range(4)] == [NO] * 3 + [LOCKED]
    site.limit(LoginLimits(100, 100, 3))
    assert [code(site.get((f"nobody{n}", "x"), address="10.0.2.1")) for n in range(4)] == [NO] * 3 + [LOCKED]
    assert code(site.get(DEV, address="10.0.2.1")) == LOCKED
    assert site.get(DEV, address="10.0.2.2").status_code == 200


def test_an_ipv6_network_is_one_address(site: Site) -> None:
    site.limit(LoginLimits(100, 100, 2))
    found = [code(site.get((f"nobody{n}", "x"), address=f"2001:db8::{n:x}")) for n in range(3)]
    assert found == [NO, NO, LOCKED]
    assert code(site.get(("nobody", "x"), address="2001:db8:0:1::1")) == NO


def test_public_health_is_no_way_around_the_door(site: Site) -> None:
    site.limit(LoginLimits(1, 0, 0))
    assert "Redis takes writes" not in site.get(("admin", "wrong"), "/api/health").get_data(as_text=True)
    assert code(site.get(ADMIN)) == LOCKED
    assert "Redis takes writes" not in site.get(ADMIN, "/api/health").get_data(as_text=True), "as to anybody"
    site.limit(LoginLimits(2, 0, 0))
    assert "Redis takes writes" in site.get(ADMIN, "/api/health").get_data(as_text=True)


def test_zero_is_no_limit(make_site: Callable[..., Site]) -> None:
    site = make_site(login_failures=0)
    assert [code(site.get(("admin", f"wrong{n}"))) for n in range(12)] == [NO] * 12


@pytest.mark.parametrize("name", ["x" * 1_000_000, "a\n*?[", "ü\U0001f389", "flansible:sequence"])
def test_no_name_becomes_part_of_a_key(site: Site, shared_redis: RedisServer, name: str) -> None:
    assert code(site.get((name, "x"))) == NO
    client = shared_redis.client()
    keys = [key.decode() for key in client.keys("flansible:logins:*")]
    client.close()
    assert len(keys) == 3 and all(len(key) < 100 and name not in key for key in keys)


def test_without_redis_passwords_are_checked_all_the_same(
    make_site: Callable[..., Site], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    site, clock = make_site(CELERY_RESULT_BACKEND=f"redis+socket://{tmp_path}/nobody-listens"), [100.0]
    site.app.extensions["flansible"].login_throttle._clock = lambda: clock[0]
    assert [code(site.get(("admin", f"wrong{n}"))) for n in range(12)] == [NO] * 12
    assert code(site.get(ADMIN)) == (503, "store_unavailable")
    attempts = []
    for clock[0] in (104.9, 105.1):
        assert code(site.get(("admin", "wrong"))) == NO
        attempts.append(caplog.text.count("wrong passwords are not counted"))
    assert attempts == [1, 2], "Redis is tried again after five seconds, and not for each password"


def commands(shared_redis: RedisServer, act: Callable[[], object]) -> int:
    """Counts the commands that Redis got meanwhile, without those of the count."""
    client = shared_redis.client()
    before = client.info("stats")["total_commands_processed"]
    act()
    after = client.info("stats")["total_commands_processed"]
    client.close()
    return int(after - before - 1)


def test_a_known_password_and_a_token_cost_no_redis_command(site: Site, shared_redis: RedisServer) -> None:
    """A poll sends Redis only the commands that read the task."""
    path = "/api/ansibletaskstatus/00000000-0000-4000-8000-000000000000"
    text = site.token()
    assert site.get(ADMIN, path).status_code == site.bearer(text, path).status_code == 404
    store = site.app.extensions["flansible"].store
    of_status = commands(shared_redis, lambda: store.task("00000000-0000-4000-8000-000000000000"))
    assert commands(shared_redis, lambda: site.get(ADMIN, path)) == of_status
    assert commands(shared_redis, lambda: site.bearer(text, path)) == of_status
    assert commands(shared_redis, lambda: site.bearer("flansible_wrong", path)) == 0


# A login function

FUNCTION = '''
"""A login function as docs/authentication.md has it."""
seen = []

def who(request):
    seen.append(request)
    if request.address != "10.0.0.1":
        return None
    name = request.headers.get("x-remote-user")
    if name == "raise":
        raise RuntimeError("no directory")
    return {"number": 1}.get(name, name)
'''


@pytest.fixture
def function_site(make_site: Callable[..., Site], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    (tmp_path / "company_login.py").write_text(FUNCTION)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield make_site(login_function="company_login:who")
    del sys.modules["company_login"]


def as_remote(site: Site, name: str, address: str = "10.0.0.1", **more: Any) -> TestResponse:
    return site.client(address).get(TASKS, headers={"X-Remote-User": name}, **more)


def test_a_login_function_says_who_is_asking(function_site: Site) -> None:
    assert as_remote(function_site, "dev").status_code == 200
    for name in ("nobody", "raise", "number", "", "DEV"):
        assert code(as_remote(function_site, name)) == NO, name
    assert code(as_remote(function_site, "dev", address="10.0.0.2")) == NO
    assert code(function_site.get()) == NO
    failures = function_site.log("login_failure")
    assert failures[0]["user"] == "nobody" and "login_function" in failures[0]["what"]


def test_a_login_function_sees_headers_and_where_from(function_site: Site) -> None:
    function_site.client().get(f"{TASKS}?limit=1", headers={"X-Remote-User": "dev", "X-Odd": "1"})
    request = sys.modules["company_login"].seen[-1]
    assert (request.address, request.method, request.path) == ("10.0.0.1", "GET", TASKS)
    assert request.headers["x-ODD"] == "1" and "wsgi.input" not in request.headers
    assert MARKER not in repr(request)


def test_passwords_and_tokens_are_taken_beside_a_login_function(function_site: Site) -> None:
    assert function_site.get(ADMIN).status_code == 200
    assert function_site.bearer(function_site.token()).status_code == 200
    seen = len(sys.modules["company_login"].seen)
    assert function_site.get(ADMIN).status_code == 200
    assert function_site.bearer(function_site.token()).status_code == 200
    assert len(sys.modules["company_login"].seen) == seen, "what is known needs no function"
    assert code(function_site.get(("admin", "wrong"))) == NO


def test_a_login_function_is_behind_the_door_when_a_password_is_given(function_site: Site) -> None:
    function_site.limit(LoginLimits(2, 0, 0))
    for n in range(2):
        function_site.get(("admin", f"wrong{n}"))
    seen = len(sys.modules["company_login"].seen)
    assert code(function_site.get(("admin", "guess"))) == LOCKED
    assert len(sys.modules["company_login"].seen) == seen


@pytest.mark.parametrize(
    "name", ["no_such_module_here:who", "json:no_such_function", "json:__doc__", "tests.integration.broken_login:who"]
)
def test_a_login_function_that_cannot_be_had_stops_the_start(make_site: Callable[..., Site], name: str) -> None:
    with pytest.raises(ConfigurationError, match="login_function"):
        make_site(login_function=name)


def test_the_example_of_the_documentation_works(
    make_site: Callable[..., Site], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = (Path(__file__).parents[2] / "docs/authentication.md").read_text()
    example = page.partition("```python\n")[2].partition("```")[0]
    (tmp_path / "proxy.secret").write_text("between us\n")
    (tmp_path / "documented_login.py").write_text(example.replace("/etc/flansible/", f"{tmp_path}/"))
    monkeypatch.syspath_prepend(str(tmp_path))
    client = make_site(login_function="documented_login:who").client()
    login = {"X-Remote-User": "dev", "X-Proxy-Secret": "between us"}
    assert client.get(TASKS, headers=login).status_code == 200
    assert client.get(TASKS, headers={**login, "X-Proxy-Secret": "guess"}).status_code == 401
    assert client.get(TASKS, headers={"X-Remote-User": "dev"}).status_code == 401
    del sys.modules["documented_login"]


# The audit log


def test_the_lines_are_on_standard_output_too(
    make_site: Callable[..., Site], capfd: pytest.CaptureFixture[str]
) -> None:
    silent, speaking = make_site(), make_site(audit_stdout=True)
    for site in (silent, speaking):
        site.client().post(COMMAND, json=PING, auth=ADMIN)
    said = capfd.readouterr().out.splitlines()
    lines = [json.dumps(line) for line in speaking.log("service_start", "submission")]
    assert said == [lines[1], lines[3]], "the starts of both, then what each was asked"


def test_the_log_says_who_did_what(site: Site) -> None:
    submitted = site.client().post(COMMAND, json=PING, auth=ADMIN, headers={"X-Request-ID": "mine-1"})
    task_id = submitted.get_json()["task_id"]
    site.client().post(f"/api/ansibletaskcancel/{task_id}", auth=ADMIN)
    site.client().post(COMMAND, json={"module": "ping", "inventory": "/etc"}, auth=DEV)
    site.get(("admin", MARKER))
    start, submission, cancel, refusal, failure = site.log()
    assert start["event"] == "service_start" and "settings" in start["what"]
    assert (submission["event"], submission["user"], submission["address"]) == ("submission", "admin", "10.0.0.1")
    assert (submission["task_id"], submission["request_id"]) == (task_id, "mine-1")
    assert submission["request"] == f"POST {COMMAND}" and submission["what"] == "admin: adhoc ping on localhost"
    assert (cancel["event"], cancel["task_id"], cancel["outcome"]) == ("cancel", task_id, "canceled")
    assert (refusal["event"], refusal["user"], refusal["code"]) == ("refusal", "dev", "inventory_forbidden")
    assert (failure["event"], failure["user"], failure["code"]) == ("login_failure", "admin", "not_authenticated")
    assert site.verified()


def test_every_reply_has_its_request_id(site: Site) -> None:
    def of(given: str | None, path: str = TASKS) -> str:
        headers = {} if given is None else {"X-Request-ID": given}
        return str(site.client().get(path, headers=headers).headers["X-Request-ID"])

    assert of("Build-7.a_b") == "Build-7.a_b"
    for odd in (None, "", "a b", "x" * 65, "ü", "a;b", '"'):
        assert len(of(odd)) == 32 and of(odd) != of(odd)
    assert len(of(None, "/nothing")) == len(of(None, "/api/health")) == len(of(None, "/api/docs/")) == 32


def test_an_attacker_at_a_closed_door_makes_one_line(site: Site) -> None:
    site.limit(LoginLimits(3, 0, 0))
    for n in range(30):
        site.get(("admin", f"wrong{n}"))
    assert len(site.log("login_failure")) == 3
    assert [line["code"] for line in site.log("login_locked", "refusal")] == ["too_many_logins"]


def test_who_is_refused_without_end_does_not_fill_the_disk(site: Site) -> None:
    context = site.app.extensions["flansible"]
    site.app.extensions["flansible"] = replace(context, audit_throttle=AuditThrottle(most_of_one=5, most=8))
    for _ in range(50):
        assert site.client().post(COMMAND, json=PING, auth=("dev", "secret")).status_code == 403
    for n in range(20):
        site.bearer(f"flansible_{n}")
    # Each kind has its own count: neither hides the other.
    assert len(site.log("refusal")) == len(site.log("login_failure")) == 5
    assert not any("omitted" in line for line in site.log("refusal", "login_failure"))


def test_without_the_log_nothing_is_submitted_and_reading_goes_on(site: Site, shared_redis: RedisServer) -> None:
    task_id = site.client().post(COMMAND, json=PING, auth=ADMIN).get_json()["task_id"]
    log = site.settings.audit_file
    log.rename(log.with_name("aside"))
    log.mkdir()  # as good as a full disk
    reply = site.client().post(COMMAND, json=PING, auth=ADMIN)
    assert code(reply) == (503, "audit_unavailable") and int(reply.headers["Retry-After"]) > 0
    assert len(site.get(ADMIN).get_json()["tasks"]) == 1, "nothing was recorded"
    assert site.client().post(f"/api/ansibletaskcancel/{task_id}", auth=ADMIN).status_code == 200
    log.rmdir()
    log.with_name("aside").rename(log)
    assert site.client().post(COMMAND, json=PING, auth=ADMIN).status_code == 202
    assert site.verified()


def test_a_log_that_cannot_be_had_stops_the_start(make_site: Callable[..., Site], tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="audit_file"):
        make_site(audit_file=tmp_path)


def test_a_submission_that_came_to_nothing_is_told_by_a_line_of_the_same_request(site: Site) -> None:
    body = {"module": "ping"}
    first = site.client().post(COMMAND, json=body, auth=ADMIN, headers={"Idempotency-Key": "k"}).get_json()["task_id"]
    again = site.client().post(COMMAND, json=body, auth=ADMIN, headers={"Idempotency-Key": "k"})
    assert again.get_json()["task_id"] == first
    other = site.client().post(COMMAND, json={"module": "setup"}, auth=ADMIN, headers={"Idempotency-Key": "k"})
    assert other.status_code == 409
    lines = site.log("submission", "refusal")
    assert [line["outcome"] for line in lines] == ["allowed", "allowed", "known already", "allowed", "409"]
    assert lines[2]["task_id"] == first and lines[2]["request_id"] == lines[1]["request_id"]
    assert lines[4]["request_id"] == lines[3]["request_id"] == other.headers["X-Request-ID"]


def test_changed_files_are_told(site: Site) -> None:
    site.users(admin="root", dev="secret", ops=generate_password_hash("x", "pbkdf2:sha256:1000"))
    site.get(ADMIN)
    site.settings.rbac_file.write_text("{")
    site.get(ADMIN)
    text = site.token()
    site.bearer(text)
    told = [(line["outcome"], line["what"].partition(" ")[0]) for line in site.log("configuration")]
    assert told[0] == ("in force", "rbac.json")
    assert told[1] == ("refused", "rbac.json") and told[2] == ("in force", "tokens.json")


def test_no_secret_is_in_the_log_in_redis_or_in_any_file(
    site: Site, shared_redis: RedisServer, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    text = site.token()
    secret = text.rpartition("_")[2]
    body = {"module": "debug", "connection_password": MARKER, "extra_vars": {"a": "b"}}
    assert site.bearer(text, COMMAND, "POST", json=body).status_code == 202
    assert site.bearer(text, COMMAND, "POST", json={**body, "inventory": 5}).status_code == 400
    site.get(("admin", MARKER))
    site.get((text, "x"))
    site.get(("admin", text))
    site.bearer(text[:-1] + "g")
    site.client().get(f"/{text}?{text}")
    client = shared_redis.client()
    stored = b"".join(client.dump(key) or b"" for key in client.keys()) + b"".join(client.keys())
    client.close()
    kept = stored.decode("latin-1") + caplog.text
    kept += "".join(path.read_text(encoding="latin-1") for path in tmp_path.rglob("*") if path.is_file())
    assert secret[:-1] not in kept and MARKER not in kept and text not in kept


def test_a_locked_store_forgets_nobody_else(store: Store) -> None:
    limits = LoginLimits(2, 0, 0, window_seconds=60)
    assert [store.count_failed_login("a", "10.0.0.1", limits) for _ in range(3)] == [False, True, False]
    assert 0 < store.login_blocked_seconds("a", "10.0.0.1", limits) <= 60
    assert store.login_blocked_seconds("b", "10.0.0.1", limits) == 0
    assert store.login_blocked_seconds("a", "not an address", limits) == 0
