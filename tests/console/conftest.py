"""The console in a real Chromium, against a whole service with real Ansible.

Playwright drives the Chromium of the system over pipes; its sync API keeps an event loop of its own in this thread for
as long as it runs, so it runs only while the tests of this folder do. Browser and service are started before a test's
leak detector looks for the first time, and stay until the last test that uses them: as other shared services, they
are no test's leak.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, Route, expect, sync_playwright

from tests.helpers.browser_watch import Watch
from tests.helpers.console_records import Records
from tests.helpers.redis_server import RedisServer
from tests.helpers.services import ADMIN, AUDITOR, Service, lay_out, start_service, write
from tests.helpers.waiting import eventually, missing, require_browser
from tests.helpers.webserver import RecordedRun

PATIENCE_MS = 20_000  # the machine may have other things to do
DESKTOP = {"width": 1280, "height": 800}
GATE = """\
- hosts: dev1
  gather_facts: false
  tasks:
    - name: Many lines
      ansible.builtin.debug:
        msg: "{{ range(0, 300) | map('string') | map('regex_replace', '^', 'early line ') | list }}"
    - name: Wait at the gate
      ansible.builtin.wait_for:
        path: "{{ gate }}"
        timeout: 60
    - name: After the gate
      ansible.builtin.debug: msg="through the gate"
"""
SHOTS = Path(__file__).parents[2] / "artefacts/console"

expect.set_options(timeout=PATIENCE_MS)


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    program = require_browser()
    with sync_playwright() as playwright:
        options = ["--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"]
        running = playwright.chromium.launch(executable_path=program, args=options)
        yield running
        running.close()


@pytest.fixture(scope="package")
def shared_service() -> Iterator[Service]:
    """`service` of all files. Its tasks are archived at once: hosts are listed and words are found then."""
    root = Path(tempfile.mkdtemp(prefix="flansible_test_"))  # a short name: sockets lie in it
    lay_out(root)
    write(root / "playbooks/gate.yml", GATE)
    users = json.loads((root / "rbac.json").read_text())
    users["rbac"].append({"user": AUDITOR[0], "password": AUDITOR[1], "role": "auditor"})
    users["rbac"] += [
        {"user": name, "password": f"{name} secret", "inventories": []} for name in ("portal", "newcomer")
    ]
    (root / "rbac.json").write_text(json.dumps(users))
    running = start_service(root, "archive_after_seconds = 0\ndefault_inventory = inventories/dev\n")
    yield running
    assert running.stop() < 10
    shutil.rmtree(root)


@pytest.fixture(scope="module")
def service(shared_service: Service) -> Iterator[Service]:
    """A whole service of a small team. What a file puts into it has names that no other file uses: tasks stay."""
    yield shared_service
    client = shared_service.client()
    for kind in ("schedules", "templates"):
        for item in client.get(f"/api/{kind}").json()["items"]:
            client.delete(f"/api/{kind}/{item['name']}").raise_for_status()
    for state in ("running", "queued"):
        eventually(lambda state=state: not client.get(f"/api/ansibletasks?state={state}").json()["tasks"])


@pytest.fixture(scope="module")
def root(service: Service) -> Path:
    """Its folder. A module may put more into it."""
    return service.root


@pytest.fixture
def watch() -> Iterator[Watch]:
    """What the pages of this test say; unexpected complaints fail it. `watch.expect("401")` lets one pass."""
    watching = Watch()
    yield watching
    if complaints := watching.complaints():
        pytest.fail("the browser complained:\n" + "\n".join(complaints), pytrace=False)


@pytest.fixture
def new_page(browser: Browser, watch: Watch) -> Iterator[Callable[..., Page]]:
    """A page with a fresh profile; options are those of playwright's `new_context`, such as viewport, color_scheme."""
    contexts = []

    def make(**options: Any) -> Page:
        context = browser.new_context(**{"viewport": DESKTOP, "locale": "en-GB", "reduced_motion": "reduce", **options})
        context.set_default_timeout(PATIENCE_MS)
        watch.follow(context)
        contexts.append(context)
        return context.new_page()

    yield make
    for context in contexts:
        context.close()


@pytest.fixture
def page(new_page: Callable[..., Page]) -> Page:
    return new_page()


@pytest.fixture(scope="package")
def shared_web(shared_redis: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Records]:
    records = Records(tmp_path_factory.mktemp("web"), shared_redis)
    yield records
    records.stop()


@pytest.fixture(scope="module")
def web(shared_web: Records) -> Iterator[Records]:
    """A web server alone, over records that the test writes: where no run of Ansible is needed. A file may change its
    users; what it defines it deletes."""
    rbac = shared_web.folder / "rbac.json"
    users = rbac.read_text()
    yield shared_web
    rbac.write_text(users)
    shared_web.clear()


@pytest.fixture
def run(web: Records) -> RecordedRun:
    """A task of `web` that runs."""
    return web.running()


@pytest.fixture
def login(request: pytest.FixtureRequest) -> Callable[..., None]:
    """Logs a page in by the API, and opens it there: `login(page)`, `login(page, DEV, "#/launch")`. url: of another
    server than `service`, which is not started then."""

    def enter(page: Page, user: tuple[str, str] = ADMIN, place: str = "#/tasks", url: str = "") -> None:
        url = url or request.getfixturevalue("service").url
        if page.url.startswith(url):  # another fragment of a page's address loads no page
            page.goto("about:blank")
        reply = page.request.post(f"{url}/api/session", data={"user": user[0], "password": user[1]})
        assert reply.ok, reply.text()
        page.goto(f"{url}/{place}")
        expect(page.get_by_role("button", name="Log out")).to_be_visible()

    return enter


@pytest.fixture
def lose_first_reply(watch: Watch) -> Callable[[Page, str], list[str | None]]:
    """`lose_first_reply(page, "**/run")`: the first request gets there, its reply does not come back; gives the
    Idempotency-Keys of all."""

    def lose(page: Page, address: str) -> list[str | None]:
        keys: list[str | None] = []
        watch.expect("ERR_FAILED")

        def handle(route: Route) -> None:
            keys.append(route.request.headers.get("idempotency-key"))
            if len(keys) > 1:
                route.continue_()
            else:
                route.fetch()
                route.abort()

        page.route(address, handle)
        return keys

    return lose


@pytest.fixture
def hold_first_reply() -> Callable[[Page, str], Callable[[], None]]:
    """`release = hold_first_reply(page, "**/a")`: the first request waits until `release()`, which returns when its
    reply could have been shown."""

    def hold(page: Page, address: str) -> Callable[[], None]:
        held: list[Route] = []
        page.route(address, lambda route: route.continue_() if held else held.append(route))

        def release() -> None:
            eventually(lambda: page.title() and held)  # which lets playwright see requests
            held[0].continue_()
            page.evaluate("() => fetch('api/session').then(() => new Promise(done => setTimeout(done, 300)))")

        return release

    return hold


@pytest.fixture
def shot(page: Page) -> Callable[..., None]:
    """With SHOTS=1 keeps a picture in artefacts/console/: `shot("tasks-dark")`, `shot("tasks-360", narrow, full=True)`.
    A picture takes as long as some tests."""

    def take(name: str, page: Page = page, full: bool = False) -> None:
        if "SHOTS" not in os.environ:
            return
        SHOTS.mkdir(parents=True, exist_ok=True)
        page.screenshot(path=SHOTS / f"{name}.png", full_page=full)

    return take


@pytest.fixture
def check_accessibility() -> Callable[[Page], None]:
    """Fails when axe-core finds something serious or critical in what the page shows now."""
    file = Path(sys.prefix) / "axe.min.js"
    if not file.exists():
        missing("axe-core (`make test` fetches it)")
    script = file.read_text(encoding="utf-8")

    def check(page: Page) -> None:
        page.evaluate(script)  # by way of the debugger: the page's policy lets no script in
        # preload: axe would read the sheets by a way that the policy forbids, and say so in the console.
        found = page.evaluate("axe.run(document, {resultTypes: ['violations'], preload: false})")
        grave = [
            f"{one['impact']}: {one['id']}: {one['help']}: {node['target']} {node['html'][:200]}"
            for one in found["violations"]
            if one["impact"] in ("serious", "critical")
            for node in one["nodes"]
        ]
        assert not grave, "\n".join(grave)

    return check


@pytest.fixture
def gate(tmp_path: Path) -> Path:
    """What `new_task("gate.yml", gate=str(gate))` waits for: it goes on when the test touches this file."""
    return tmp_path / "gate"


@pytest.fixture
def new_task(service: Service) -> Callable[..., str]:
    """Submits by the API and gives the id: `new_task()` is a ping, `new_task(playbook="slow.yml", seconds=5)` a
    playbook with variables. `body` says the rest of the request; `wait` until it is over."""

    def submit(
        playbook: str = "",
        user: tuple[str, str] = ADMIN,
        body: dict[str, Any] | None = None,
        wait: bool = False,
        **variables: Any,
    ) -> str:
        if playbook:
            kind = "ansibleplaybook"
            request = {"playbook_dir": str(service.root / "playbooks"), "playbook": playbook, "extra_vars": variables}
        else:
            kind = "ansiblecommand"
            request = {"module": "ping", "host_pattern": "all"}
        request |= {"inventory": str(service.root / "inventories/dev")}
        task_id = service.submit(kind, request | (body or {}), user)
        if wait:
            service.wait(task_id, user)
        return task_id

    return submit
