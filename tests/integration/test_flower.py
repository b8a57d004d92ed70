"""Flower behind admin's login: a real `flansible up --flower` on a Redis with a password, asked over HTTP."""

from __future__ import annotations

import base64
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
import redis

from flansible.identity import passwords
from flansible.launcher import embedded_redis
from flansible.store import LoginLimits, LoginThrottle, Retention, Store
from tests.helpers.ports import free_port
from tests.helpers.waiting import eventually, missing

ADMIN = ("admin", "MARKER-admin-password")
DEV = ("dev", "MARKER-dev-password")
REDIS_PASSWORD = "MARKER-redis-password"
SECRET = "MARKER-extra-var"
SCRIPTS = Path(sys.executable).parent
STOP_SECONDS = 2.0  # it takes hundredths; a busy machine may be slow to notice
# Not Flower's own list of handlers: what a request of any kind gets is the point.
PATHS = (
    "/",
    "/workers",
    "/workers?json=1",
    "/tasks",
    "/tasks/datatable?draw=1&start=0&length=10&order[0][column]=0",
    "/broker",
    "/api/workers",
    "/api/tasks",
    "/api/task/types",
    "/api/queues/length",
    "/metrics",
    "/healthcheck",
    "/static/css/flower.css",
    "/favicon.ico",
)
ELSEWHERE = ("/login", "/logout", "/task/unknown", "/worker/unknown", "/api/task/info/unknown", "/no/such/page", "//")
WRONG = (("admin", "wrong"), ("admin", DEV[1]), ("admin", ""), ("", ""))


def write_users(path: Path, *users: tuple[str, str]) -> None:
    path.write_text(json.dumps({"rbac": [{"user": user, "password": password} for user, password in users]}))
    path.chmod(0o600)


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@contextmanager
def running(command: list[str], folder: Path) -> Iterator[subprocess.Popen[str]]:
    """A process and its output in `folder`/log, stopped in the end with all it started."""
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            command, cwd=folder, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log, text=True
        )
    assert process.stdout is not None
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(20)
        finally:
            process.kill()
            process.wait()
            process.stdout.close()


@dataclass(frozen=True)
class Service:
    """One running service with Flower."""

    folder: Path
    url: str
    flower_url: str
    process: psutil.Process

    def ask(self, path: str, auth: tuple[str, str] | None = ADMIN, method: str = "GET", **more: Any) -> httpx.Response:
        return httpx.request(method, self.flower_url + path, auth=auth, timeout=30, **more)

    def child(self, role: str) -> psutil.Process:
        return next(child for child in self.process.children() if child.cmdline()[4:5] == [role])

    def submit(self, seconds: float) -> str:
        """A task that sleeps; there is one slot."""
        body = {"module": "command", "module_args": f"sleep {seconds}"}
        reply = httpx.post(f"{self.url}/api/ansiblecommand", json=body, auth=ADMIN, timeout=30)
        assert reply.status_code == 202, reply.text
        return str(reply.json()["task_id"])

    def status(self, task_id: str) -> dict[str, Any]:
        return dict(httpx.get(f"{self.url}/api/ansibletaskstatus/{task_id}", auth=ADMIN, timeout=30).json())

    def await_state(self, task_id: str, state: str) -> None:
        eventually(lambda: self.status(task_id)["state"] == state, 30)

    def revoke(self, task_id: str, auth: tuple[str, str] | None = ADMIN, **more: Any) -> httpx.Response:
        return self.ask(f"/api/task/revoke/{task_id}", auth, "POST", **more)


@pytest.fixture(scope="module")
def redis_server_on_tcp(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[psutil.Process, int]]:
    """A Redis of our own that wants a password: it must not show either. Its process and its port."""
    program = embedded_redis.find_program()
    if program is None:
        missing("redis-server")
    port = free_port()
    options = ["--port", str(port), "--bind", "127.0.0.1", "--save", "", "--requirepass", REDIS_PASSWORD]
    with running([str(program), *options], tmp_path_factory.mktemp("redis")) as process:
        eventually(lambda: listens(port))
        yield psutil.Process(process.pid), port


@pytest.fixture(scope="module")
def redis_process(redis_server_on_tcp: tuple[psutil.Process, int]) -> psutil.Process:
    return redis_server_on_tcp[0]


@pytest.fixture(scope="module")
def redis_url(redis_server_on_tcp: tuple[psutil.Process, int]) -> str:
    return f"redis://:{REDIS_PASSWORD}@127.0.0.1:{redis_server_on_tcp[1]}/0"


@pytest.fixture(scope="module")
def service(redis_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("service")
    port, flower_port = free_port(), free_port()
    config = folder / "config.ini"
    config.write_text(
        f"[Default]\nCELERY_BROKER_URL = {redis_url}\nCELERY_RESULT_BACKEND = {redis_url}\n"
        f"Flask_tcp_port = {port}\nflower_tcp_port = {flower_port}\nworker_concurrency = 1\nlogin_failures = 0\n"
    )
    config.chmod(0o600)
    write_users(folder / "rbac.json", ADMIN, DEV)
    with running([str(SCRIPTS / "flansible"), "up", "--flower"], folder) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith("Flansible is ready"), (folder / "log").read_text()
        eventually(lambda: listens(flower_port))
        yield Service(
            folder, f"http://127.0.0.1:{port}", f"http://127.0.0.1:{flower_port}", psutil.Process(process.pid)
        )


@pytest.fixture(scope="module")
def task_id(service: Service) -> str:
    """A task that is over, and that Flower has heard of."""
    body = {"module": "debug", "module_args": {"msg": "hi"}, "extra_vars": {"secret": SECRET}}
    reply = httpx.post(f"{service.url}/api/ansiblecommand", json=body, auth=ADMIN, timeout=30)
    assert reply.status_code == 202, reply.text
    found = str(reply.json()["task_id"])
    eventually(lambda: service.ask("/api/tasks").json().get(found, {}).get("state") == "SUCCESS", 60)
    return found


@pytest.mark.parametrize("path", PATHS + ELSEWHERE)
def test_nothing_is_shown_without_admins_login(service: Service, path: str) -> None:
    # Each wrong password takes a tenth of a second to check: every path has one of them, and the first has all.
    wrong = WRONG if path == PATHS[0] else WRONG[len(path) % len(WRONG) :][:1]
    for auth in (None, DEV, *wrong):
        reply = service.ask(path, auth)
        assert reply.status_code == 401, auth
        assert reply.headers["WWW-Authenticate"].startswith("Basic ")
        assert "Flower is for the user admin" in reply.text


@pytest.mark.parametrize("method", ["HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE", "PROPFIND"])
def test_no_method_gets_round_the_login(service: Service, method: str) -> None:
    for path in ("/", "/api/tasks", "/api/worker/shutdown/x", "/static/css/flower.css"):
        assert service.ask(path, None, method).status_code == 401


@pytest.mark.parametrize("path", PATHS)
def test_admin_sees_every_page(service: Service, path: str) -> None:
    reply = service.ask(path)
    assert reply.status_code == 200
    assert reply.headers["X-Frame-Options"] == "DENY"


def test_a_page_that_does_not_exist_is_404_for_admin(service: Service) -> None:
    assert service.ask("/no/such/page").status_code == 404


@pytest.mark.parametrize(
    "header",
    [
        "",
        "Basic",
        "Basic !!!",
        "Basic " + base64.b64encode(b"admin").decode(),
        "Basic " + base64.b64encode(b"admin:\xff\xfe").decode(),
        "Basic " + base64.b64encode(b"admin:" + b"x" * 20000).decode(),
        "Basic " + base64.b64encode(b"admin:MARKER-admin-password\0").decode(),
        "Bearer " + base64.b64encode(b"admin:MARKER-admin-password").decode(),
    ],
)
def test_a_login_that_is_none_is_refused(service: Service, header: str) -> None:
    assert service.ask("/api/tasks", None, headers={"Authorization": header}).status_code == 401


def test_a_second_authorization_header_does_not_help(service: Service) -> None:
    good = "Basic " + base64.b64encode(":".join(ADMIN).encode()).decode()
    headers = [("Authorization", "Basic x"), ("Authorization", good)]
    assert service.ask("/api/tasks", None, headers=headers).status_code == 401


def test_a_refused_upload_is_answered_and_the_connection_still_serves(service: Service) -> None:
    with httpx.Client(base_url=service.flower_url, timeout=30) as client:
        assert client.post("/api/task/send-task/x", content=b"x" * 500_000).status_code == 401
        assert client.get("/api/tasks", auth=ADMIN).status_code == 200


def test_a_changed_password_counts_at_once(service: Service) -> None:
    rbac = service.folder / "rbac.json"
    before = rbac.read_text()
    try:
        passwords.set_password(rbac, "admin", "another one, hashed: ü")
        assert service.ask("/").status_code == 401
        assert service.ask("/", ("admin", "another one, hashed: ü")).status_code == 200
        rbac.write_text("{ broken")
        assert service.ask("/", ("admin", "another one, hashed: ü")).status_code == 200
        write_users(rbac, DEV)
        assert service.ask("/", ("admin", "another one, hashed: ü")).status_code == 401
    finally:
        rbac.write_text(before)
    assert service.ask("/").status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1"},
        {"Origin": "http://[broken"},
        {"Referer": "https://evil.example/page"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site", "Origin": "http://127.0.0.1:1"},
    ],
)
def test_a_post_from_a_page_of_another_site_is_refused(service: Service, headers: dict[str, str]) -> None:
    reply = service.ask("/tasks/datatable", method="POST", headers=headers)
    assert reply.status_code == 403
    assert "another site" in reply.text


def test_flowers_own_page_may_post(service: Service) -> None:
    form = {"draw": "1", "start": "0", "length": "10", "order[0][column]": "0", "columns[0][data]": "args"}
    for headers in ({"Origin": service.flower_url}, {"Sec-Fetch-Site": "same-origin"}, {}):
        assert service.ask("/tasks/datatable", method="POST", data=form, headers=headers).status_code == 200


def test_flowers_other_controls_are_refused(service: Service, task_id: str) -> None:
    worker = next(iter(service.ask("/api/workers?refresh=1").json()))
    for path in (
        f"worker/shutdown/{worker}",
        f"worker/pool/restart/{worker}",
        f"worker/pool/grow/{worker}",
        f"worker/queue/cancel-consumer/{worker}?queue=flansible",
        f"task/abort/{task_id}",
        "task/send-task/flansible.run",
        "task/apply/flansible.run",
        "task/async-apply/flansible.run",
        "task/rate-limit/flansible.run",
        f"task/revoke/{task_id}/../../worker/shutdown/{worker}",
        "task/revoke/",
    ):
        reply = service.ask(f"/api/{path}", method="POST")
        assert reply.status_code == 403, path
        assert "controls are off" in reply.text
    assert service.ask(f"/api/task/revoke/{task_id}", method="PUT").status_code == 403
    assert "Shut Down" not in service.ask(f"/worker/{worker}").text


def test_a_queued_task_is_canceled_and_dropped(service: Service) -> None:
    running = service.submit(60)
    service.await_state(running, "running")
    queued, last = service.submit(0), service.submit(0)
    reply = service.revoke(queued, data={"terminate": "false"})  # as the page's button does
    assert (reply.status_code, reply.json()) == (200, {"message": f"Canceled '{queued}'"})
    status = service.status(queued)
    assert (status["state"], status["description"]) == ("canceled", "canceled by admin before it started")
    assert service.revoke(queued).status_code == 200  # asking again changes nothing
    lines = [json.loads(line) for line in (service.folder / ".flansible/audit.log").read_text().splitlines()]
    audited = [line for line in lines if line["event"] == "cancel" and line["task_id"] == queued]
    assert [(line["user"], line["outcome"]) for line in audited] == [("admin", "canceled")] * 2
    assert audited[0]["request"] == f"POST /api/task/revoke/{queued} (Flower)"
    service.revoke(running)
    service.await_state(last, "succeeded")
    assert service.status(queued) == status
    eventually(lambda: service.ask("/api/tasks").json()[queued]["state"] == "REVOKED")


def test_a_run_is_ended(service: Service) -> None:
    running = service.submit(60)
    service.await_state(running, "running")
    reply = service.revoke(running, data={"terminate": "true"})
    assert (reply.status_code, reply.json()) == (200, {"message": f"Ending '{running}'"})
    service.await_state(running, "canceled")
    assert service.status(running)["description"].startswith("canceled by admin; ")
    eventually(lambda: service.ask("/api/tasks").json()[running]["result"] == "'canceled'")


def test_what_cannot_be_revoked_is_told(service: Service, task_id: str) -> None:
    reply = service.revoke(task_id)
    assert (reply.status_code, reply.text) == (409, "The task is already final: succeeded.")
    for unknown in ("7d4be01c-4f0f-4dc6-9d8c-1c1f0e0a5a52", "nonsense", f"{task_id}:run", "%s", "{}"):
        assert service.revoke(unknown).status_code == 404, unknown


def test_only_admin_revokes_and_from_no_other_site(service: Service) -> None:
    running = service.submit(60)
    service.await_state(running, "running")
    for auth in (None, DEV, ("admin", "wrong")):
        assert service.revoke(running, auth).status_code == 401
    for headers in ({"Origin": "http://evil.example"}, {"Sec-Fetch-Site": "cross-site"}):
        assert service.revoke(running, headers=headers).status_code == 403
    assert service.status(running)["state"] == "running"
    assert service.revoke(running, headers={"Sec-Fetch-Site": "same-origin"}).status_code == 200
    service.await_state(running, "canceled")


def test_a_task_that_is_revoked_while_no_worker_is_up_never_runs(service: Service) -> None:
    running = service.submit(60)
    service.await_state(running, "running")
    queued = service.submit(0)
    worker = service.child("worker")
    worker.suspend()
    try:
        assert service.revoke(queued).status_code == 200
        assert service.status(queued)["state"] == "canceled"
    finally:
        worker.resume()
    service.revoke(running)
    after = service.submit(0)
    service.await_state(after, "succeeded")
    assert service.status(queued)["started_at"] is None


def test_a_store_that_is_frozen_is_told(service: Service, redis_process: psutil.Process) -> None:
    running = service.submit(60)
    service.await_state(running, "running")
    redis_process.suspend()
    try:
        reply = service.revoke(running)
    finally:
        redis_process.resume()
    assert reply.status_code == 503
    assert "not canceled" in reply.text
    eventually(lambda: service.revoke(running).status_code == 200)
    service.await_state(running, "canceled")


def test_the_buttons_that_work_are_there(service: Service, task_id: str) -> None:
    def buttons(shown: str) -> list[str]:
        page = service.ask(f"/task/{shown}").text
        return [name for name in ("task-revoke", "task-terminate") if f'id="{name}"' in page]

    running = service.submit(60)
    service.await_state(running, "running")
    queued = service.submit(0)
    eventually(lambda: buttons(running) == ["task-terminate"])
    eventually(lambda: buttons(queued) == ["task-revoke"])
    assert buttons(task_id) == []
    service.revoke(running)
    service.await_state(queued, "succeeded")


def test_a_task_appears_with_a_readable_line(service: Service, task_id: str) -> None:
    line = "admin: adhoc debug on localhost"
    assert service.ask("/api/tasks").json()[task_id]["args"] == f"({line})"
    assert line in service.ask(f"/task/{task_id}").text
    assert 'data-column="args"' in service.ask("/tasks").text
    assert service.ask(f"/api/task/info/{task_id}").json()["result"] == "'succeeded'"


def test_no_secret_is_on_any_page(service: Service, task_id: str) -> None:
    worker = next(iter(service.ask("/api/workers?refresh=1").json()))
    pages = (f"/task/{task_id}", f"/api/task/info/{task_id}", f"/worker/{worker}", "/api/workers?refresh=1")
    for path in (*PATHS, *pages):
        reply = service.ask(path)
        assert reply.status_code == 200, path
        assert "MARKER" not in reply.text, path


def test_no_password_is_in_flowers_arguments_or_environment(service: Service) -> None:
    flower = service.child("flower")
    assert "MARKER" not in " ".join(flower.cmdline())
    assert "MARKER" not in json.dumps(flower.environ())
    assert "MARKER" not in (service.folder / "log").read_text()


# Flower alone, with a broker that is away.

FLOWER = [sys.executable, "-P", "-m", "flansible", "flower"]
# A later Flower's handler, of a class that has none of Flower's own checks.
WITH_A_NEW_HANDLER = """
import flower.urls, tornado.web
from flansible import __main__
class Later(tornado.web.RequestHandler):
    def get(self): self.write("shown")
flower.urls.handlers.insert(0, (r"/later", Later))
__main__.main()
"""


@pytest.fixture
def flower_port(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> int:
    """The port that Flower, started in tmp_path, listens on. Its broker is away."""
    port = free_port()
    monkeypatch.setenv("FLANSIBLE_FLOWER_TCP_PORT", str(port))
    for key in ("CELERY_BROKER_URL", "CELERY_RESULT_BACKEND"):
        monkeypatch.setenv(f"FLANSIBLE_{key}", f"redis+socket://{tmp_path}/nobody-listens")
    write_users(tmp_path / "rbac.json", ADMIN)
    return port


def test_a_handler_that_a_later_flower_brings_is_behind_the_login(tmp_path: Path, flower_port: int) -> None:
    with running([sys.executable, "-P", "-c", WITH_A_NEW_HANDLER, "flower"], tmp_path):
        eventually(lambda: listens(flower_port))
        url = f"http://127.0.0.1:{flower_port}/later"
        assert httpx.get(url, timeout=30).status_code == 401
        assert httpx.get(url, auth=ADMIN, timeout=30).text == "shown"


@pytest.mark.by_day(1)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_stops_at_once_even_when_the_broker_is_away(tmp_path: Path, flower_port: int, number: int) -> None:
    with running(FLOWER, tmp_path) as process:
        eventually(lambda: listens(flower_port))
        assert httpx.get(f"http://127.0.0.1:{flower_port}/", timeout=30).status_code == 401
        process.send_signal(number)
        assert process.wait(STOP_SECONDS) == 0
    assert "Traceback" not in (tmp_path / "log").read_text()


def refused_start(folder: Path, **environ: str) -> str:
    """What it says when it does not start."""
    ended = subprocess.run(
        FLOWER,
        cwd=folder,
        env=os.environ | environ,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ended.returncode == 2
    assert "Traceback" not in ended.stderr
    return ended.stderr


def test_it_does_not_start_without_an_admin(tmp_path: Path, flower_port: int) -> None:
    write_users(tmp_path / "rbac.json", DEV)
    assert "has no user admin" in refused_start(tmp_path)


@pytest.mark.by_day(1)
@pytest.mark.parametrize(("text", "words"), [("{", "is not JSON"), (None, "does not exist")], ids=["broken", "missing"])
def test_it_does_not_start_without_a_good_rbac_file(
    tmp_path: Path, flower_port: int, text: str | None, words: str
) -> None:
    (tmp_path / "rbac.json").unlink()
    if text is not None:
        (tmp_path / "rbac.json").write_text(text)
    assert words in refused_start(tmp_path)


def test_the_password_everybody_knows_is_for_loopback_only(tmp_path: Path, flower_port: int) -> None:
    write_users(tmp_path / "rbac.json", ("admin", "admin"))
    assert "flansible passwd admin" in refused_start(tmp_path, FLANSIBLE_FLOWER_TCP_IP="0.0.0.0")


def test_a_port_that_is_taken_is_named(tmp_path: Path, flower_port: int) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", flower_port))
        taken.listen()
        assert f"port {flower_port}" in refused_start(tmp_path)


def test_stock_flower_works_by_hand(tmp_path: Path, flower_port: int, redis_url: str) -> None:
    os.environ["FLANSIBLE_CELERY_BROKER_URL"] = redis_url  # the fixture's monkeypatch takes it back
    options = ["--address=127.0.0.1", f"--port={flower_port}"]
    with running([str(SCRIPTS / "celery"), "-A", "flansible.celery_app", "flower", *options], tmp_path):
        eventually(lambda: listens(flower_port))
        assert httpx.get(f"http://127.0.0.1:{flower_port}/", timeout=30).status_code == 200


def test_wrong_passwords_are_counted_and_audited_as_at_the_api(
    tmp_path: Path, flower_port: int, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for key in ("CELERY_BROKER_URL", "CELERY_RESULT_BACKEND"):
        monkeypatch.setenv(f"FLANSIBLE_{key}", redis_url)
    monkeypatch.setenv("FLANSIBLE_LOGIN_FAILURES", "3")
    url = f"http://127.0.0.1:{flower_port}/api/tasks"
    with running(FLOWER, tmp_path):
        eventually(lambda: listens(flower_port))
        try:
            wrong = [httpx.get(url, auth=("admin", f"guess {n}"), timeout=30) for n in range(6)]
            assert [reply.status_code for reply in wrong] == [401] * 3 + [429] * 3
            assert 0 < int(wrong[-1].headers["Retry-After"]) <= 300
            assert "Too many wrong passwords" in wrong[-1].text
            assert httpx.get(url, auth=ADMIN, timeout=30).status_code == 429
            assert httpx.get(url, auth=DEV, timeout=30).status_code == 401
            # The API counts the same attempts: whoever guesses there goes on where Flower stopped.
            with closing(Store(redis_url, Retention())) as store:
                throttle = LoginThrottle(store, LoginLimits.for_pair(3))
                assert throttle.locked_seconds("admin", "127.0.0.1") > 0
        finally:
            with redis.Redis.from_url(redis_url) as client:
                client.delete(*client.keys("flansible:logins:*"))
        assert httpx.get(url, auth=ADMIN, timeout=30).status_code == 200
    lines = [json.loads(line) for line in (tmp_path / ".flansible/audit.log").read_text().splitlines()]
    failures = [line for line in lines if line["event"] == "login_failure"]
    assert [line["user"] for line in failures[:3]] == ["admin"] * 3
    assert failures[3]["user"].startswith("unknown:")
    assert failures[0]["address"] == "127.0.0.1" and failures[0]["request"] == "GET /api/tasks (Flower)"
    assert [line["code"] for line in lines if line["event"] == "login_locked"] == ["too_many_logins"]
