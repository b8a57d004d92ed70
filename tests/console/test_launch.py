"""Starting something from the console: the form, what is refused, the preview, and links that fill it in."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

import pytest
from playwright.sync_api import Page, expect

from tests.helpers.browser_watch import Watch
from tests.helpers.console_records import Records
from tests.helpers.services import ADMIN, AUDITOR, DEV, Service, write

HUSH = "hush, a password"
SCRIPT = "<script>document.title='caught'</script>"
ASKING = f"""\
# Deploys the thing {SCRIPT}.
- name: Deploy
  hosts: web
  gather_facts: false
  vars_prompt:
    - {{name: db_password, prompt: Password of the database}}
    - {{name: colour, prompt: Colour, private: false, default: red}}
  vars: {{port: 80, is_big: false}}
  roles: [sized]
  tasks:
    - name: Say it {SCRIPT}
      ansible.builtin.debug:
        msg: "{{{{ colour }}}} {{{{ port }}}} {{{{ is_big }}}} {{{{ size }}}} {{{{ names }}}} {{{{ db_password }}}}"
"""
SPECS = """\
argument_specs:
  main:
    options:
      size: {type: str, choices: [small, large], required: true, description: How much of it}
      names: {type: list, default: [a]}
"""


@pytest.fixture(scope="module", autouse=True)
def files(root: Path) -> None:
    write(root / "playbooks/ask.yml", ASKING)
    write(root / "playbooks/roles/sized/meta/argument_specs.yml", SPECS)
    write(root / "playbooks/roles/sized/tasks/main.yml", "- ansible.builtin.debug: msg=sized\n")
    write(root / "playbooks/roles/sized/defaults/main.yml", "names: [a]\n")
    write(root / "playbooks/keyed.yml", KEYED)
    write(root / "playbooks/roles/keyed/meta/argument_specs.yml", KEY_SPECS)
    write(root / "playbooks/roles/keyed/tasks/main.yml", "- ansible.builtin.debug: msg=keyed\n")
    write(root / "playbooks/flags.yml", FLAGS)
    write(root / "playbooks/roles/flagged/meta/argument_specs.yml", FLAG_SPECS)
    write(root / "playbooks/roles/flagged/tasks/main.yml", "- ansible.builtin.debug: msg=flagged\n")


FLAGS = """\
- hosts: dev1
  gather_facts: false
  vars: {flag: false, word: hello}
  roles: [flagged]
"""
FLAG_SPECS = "argument_specs: {main: {options: {sure: {type: bool, required: true}, loud: {type: bool}}}}\n"
KEYED = """\
- hosts: dev1
  gather_facts: false
  vars: {deploy_token: none}
  roles: [keyed]
"""
KEY_SPECS = "argument_specs: {main: {options: {database: {type: dict}, flavour: {type: str, choices: [a, b]}}}}\n"


Login = Callable[..., None]
LIMITED = ("limited", "limited secret")


@pytest.fixture(scope="module")
def web(web: Records) -> Records:
    """With a user who may neither become another nor update a checkout."""
    users = json.loads((web.folder / "rbac.json").read_text())
    user = {"user": LIMITED[0], "password": LIMITED[1], "inventories": [], "become": False, "git": False}
    users["rbac"].append(user)
    (web.folder / "rbac.json").write_text(json.dumps(users))
    return web


def preview(page: Page) -> str:
    page.get_by_role("button", name="Preview").click()
    aside = page.get_by_role("region", name="Preview")
    expect(aside.get_by_role("heading", name="Your rights")).to_be_visible()
    return aside.inner_text()


def body_of(service: Service, page: Page, user: tuple[str, str] = DEV) -> tuple[str, dict[str, object]]:
    """Starts what is in the form; the task and the body that arrived."""
    page.get_by_role("button", name="Start").click()
    page.wait_for_url(re.compile(r"#/tasks/[0-9a-f-]{36}"))
    task_id = page.url.rpartition("/")[2]
    return task_id, service.client(user).get(f"/api/ansibletaskrequest/{task_id}").json()["body"]


def test_a_ping_is_launched(page: Page, service: Service, login: Login, shot: Callable[..., None]) -> None:
    login(page, DEV, "#/launch?kind=adhoc")
    page.get_by_label("Module").fill("ping")
    page.get_by_text("Groups and hosts").click()
    page.get_by_role("button", name="web", exact=True).click()
    expect(page.get_by_label("Hosts", exact=True)).to_have_value("web")
    page.get_by_role("button", name="dev2").click()
    page.get_by_role("button", name="web", exact=True).click()
    expect(page.get_by_label("Hosts", exact=True)).to_have_value("dev2")
    text = preview(page)
    assert "would do nothing" not in text
    assert "This is allowed" in text and "ansible --inventory=" in text and "1 host, 1 play task" in text
    shot("launch-adhoc")
    page.get_by_label("Become", exact=True).check()
    expect(page.get_by_text("The form has changed since")).to_be_visible()
    page.get_by_label("Become", exact=True).uncheck()
    page.get_by_role("textbox", name="Hosts").fill("nobody")
    page.get_by_role("button", name="Preview").click()
    expect(page.get_by_text("No hosts matched: the run would do nothing.")).to_have_class("tone-warning")
    shot("launch-no-hosts")
    page.get_by_role("textbox", name="Hosts").fill("dev2")
    task_id, body = body_of(service, page)
    assert body == {"module": "ping", "host_pattern": "dev2"}
    assert service.wait(task_id, DEV)["state"] == "succeeded"


def test_a_playbook_is_launched_with_what_it_asks_for(
    page: Page, service: Service, login: Login, shot: Callable[..., None], check_accessibility: Callable[[Page], None]
) -> None:
    login(page, DEV, "#/launch")
    page.get_by_role("radio", name="ask.yml").check()
    expect(page.get_by_label("size")).to_be_visible()
    page.get_by_label("size").select_option("large")
    page.get_by_label("port").fill("443")
    page.get_by_label("is_big").check()
    page.get_by_label("names").fill('["b", "c"]')
    page.get_by_label("db_password").fill(HUSH)
    page.get_by_label("Limit", exact=True).fill("dev1")
    text = preview(page)
    assert f"Say it {SCRIPT}" in text and "dev1" in text and "dev2" not in text
    assert HUSH not in text and HUSH not in page.url and quote(HUSH) not in page.url
    check_accessibility(page)
    shot("launch-playbook", full=True)
    task_id, body = body_of(service, page)
    assert body["extra_vars"] == {"port": 443, "is_big": True, "size": "large", "names": ["b", "c"]}
    assert body["secret_vars"] == {"db_password": "********"}
    assert service.wait(task_id, DEV)["state"] == "succeeded"
    output = service.output(task_id, DEV)
    assert "*" * len(HUSH) in output and HUSH not in output and "red 443 True large" in output
    assert page.title() != "caught"


def test_what_the_service_refuses_is_told_at_its_field(
    page: Page, service: Service, login: Login, watch: Watch
) -> None:
    watch.expect("40[03].*(preview|ansiblecommand)")
    login(
        page,
        DEV,
        f"#/launch?kind=adhoc&module=ping&host_pattern=all&inventory={quote(str(service.root))}/inventories/prod",
    )
    text = preview(page)
    assert "This is not allowed" in text and "inventory" in text
    expect(page.get_by_label("Inventory", exact=True)).to_have_attribute("aria-invalid", "true")
    expect(page.locator(".field-error:visible")).to_contain_text("You may not use inventory")
    page.get_by_role("button", name="Start").click()
    expect(page.locator("form").get_by_role("alert")).to_contain_text("You may not use inventory")
    page.get_by_label("Inventory", exact=True).select_option(label="dev")
    page.get_by_text("More options").click()
    page.get_by_label("Forks").fill("many")
    page.get_by_role("button", name="Start").click()
    expect(page.get_by_label("Forks")).to_be_focused()
    page.get_by_label("Forks").fill("0")
    page.get_by_role("button", name="Start").click()
    expect(page.locator(".field-error:visible")).to_contain_text("greater than or equal to 1")


def test_a_list_that_is_none_is_told_at_once(page: Page, service: Service, login: Login) -> None:
    login(page, DEV, "#/launch?kind=playbook&playbook_dir=.&playbook=ask.yml")
    expect(page.get_by_role("radio", name="ask.yml")).to_be_checked()
    page.get_by_label("names").fill("a, b")
    page.get_by_role("button", name="Start").click()
    faults = page.locator(".field-error:visible")
    expect(page.locator(".field", has_text="names")).to_contain_text('List as JSON, such as ["a", "b"]')
    expect(faults.filter(has_text="This is not JSON")).to_have_count(1)
    expect(faults.filter(has_text="This is required")).to_have_count(2)
    page.get_by_label("names").fill('{"a": 1}')
    page.get_by_role("button", name="Start").click()
    expect(faults.filter(has_text="has to be a list")).to_have_count(1)


def test_a_link_fills_the_form_and_the_form_makes_the_link(page: Page, service: Service, login: Login) -> None:
    variables = quote(json.dumps({"size": "small", "port": 8080, "other": 1}))
    login(
        page, DEV, f"#/launch?kind=playbook&playbook=ask.yml&playbook_dir=.&limit=dev1&check=true&variables={variables}"
    )
    expect(page.get_by_label("port")).to_have_value("8080")
    expect(page.get_by_label("Limit", exact=True)).to_have_value("dev1")
    expect(page.get_by_label(re.compile("Check"))).to_be_checked()
    expect(page.get_by_label("Extra variables")).to_have_value(re.compile('"other": 1'))
    page.get_by_label("db_password").fill(HUSH)
    page.get_by_label("Tags", exact=True).fill("one,two")
    page.wait_for_url(re.compile("tags=one%2Ctwo"))
    page.get_by_label("Extra variables").fill('{"api_key": "hush too"}')
    page.get_by_text("Passwords and secret variables").click()
    page.get_by_label("Private key", exact=True).fill("hush as well")
    page.get_by_label("Tags", exact=True).fill("one,two")
    page.get_by_label("Skip tags").fill("three")
    page.wait_for_url(re.compile("skip_tags=three"))
    assert "hush" not in page.url
    page.reload()
    expect(page.get_by_label("Tags", exact=True)).to_have_value("one,two")
    expect(page.get_by_label("port")).to_have_value("8080")
    expect(page.get_by_label("db_password")).to_have_value("")


def test_a_task_is_run_again_but_its_secrets_are_typed_again(page: Page, service: Service, login: Login) -> None:
    request = {"playbook_dir": ".", "playbook": "ask.yml", "limit": "dev1", "timeout": 20, "lock": ["a", "b"]}
    request |= {"extra_vars": {"size": "large", "api_key": "x1x1"}, "secret_vars": {"db_password": HUSH}}
    request |= {"become_password": "b3come"}
    before = service.submit("ansibleplaybook", request, DEV)
    service.wait(before, DEV)
    login(page, DEV, f"#/launch?from={before}")
    expect(page.get_by_label("size")).to_have_value("1")
    for field in ("db_password", "Become password"):
        expect(page.get_by_label(field)).to_have_value("")
        expect(page.get_by_label(field)).to_have_attribute("aria-invalid", "true")
    page.get_by_label("db_password").fill(HUSH)
    expect(page.get_by_label("Name", exact=True)).to_have_value("api_key")
    page.get_by_label("Value", exact=True).fill("y2y2")
    _, body = body_of(service, page)
    assert body["secret_vars"] == {"db_password": "********", "api_key": "********"}
    assert (body["timeout"], body["lock"], body["extra_vars"]) == (20, ["a", "b"], {"size": "large"})
    assert "become_password" not in body


def test_what_was_hidden_is_no_value_of_a_field_when_it_is_run_again(
    page: Page, service: Service, login: Login
) -> None:
    """Also where the field is no secret one, and where a part of a value was hidden."""
    variables = {"deploy_token": "x1x1", "database": {"host": "db", "password": "x2x2"}, "flavour": "a"}
    request = {"playbook_dir": ".", "playbook": "keyed.yml", "extra_vars": variables}
    before = service.submit("ansibleplaybook", request, DEV)
    service.wait(before, DEV)
    login(page, DEV, f"#/launch?from={before}")
    expect(page.get_by_label("flavour")).to_have_value("0")
    for field, value in (("deploy_token", ""), ("database", re.compile("db"))):
        expect(page.get_by_label(field)).to_have_value(value)
        expect(page.get_by_label(field)).to_have_attribute("aria-invalid", "true")
    page.get_by_role("button", name="Start").click()
    expect(page.locator(".field-error:visible")).to_have_text([re.compile("A part of it was hidden")])
    page.get_by_label("database").fill('{"host": "db", "password": "y2y2"}')
    page.get_by_label("flavour").select_option("b")
    page.wait_for_url(re.compile("flavour%22%3A%22b"))
    assert "y2y2" not in page.url
    _, body = body_of(service, page)
    assert body["extra_vars"] == {"database": {"host": "db", "password": "********"}, "flavour": "b"}


def test_no_template_is_saved_with_what_was_hidden(page: Page, service: Service, login: Login) -> None:
    before = service.submit("ansiblecommand", {"module": "debug", "module_args": "msg=a api_key=x1x1"}, ADMIN)
    login(page, ADMIN, f"#/tasks/{before}")
    page.get_by_role("button", name="Save as template").click()
    page.get_by_role("dialog").get_by_label("Name").fill("masked")
    page.get_by_role("button", name="Save", exact=True).click()
    expect(page.get_by_role("dialog").get_by_role("alert")).to_contain_text("A part of module_args was hidden")
    assert service.client().get("/api/templates/masked").status_code == 404


def test_false_and_an_empty_text_are_values_also_when_it_is_run_again(
    page: Page, service: Service, login: Login
) -> None:
    login(page, DEV, "#/launch?kind=playbook&playbook_dir=.&playbook=flags.yml")
    page.get_by_label("sure").select_option("false")
    _, body = body_of(service, page)
    assert body["extra_vars"] == {"sure": False}
    variables = {"sure": False, "loud": False, "flag": False, "word": ""}
    request = {"playbook_dir": ".", "playbook": "flags.yml", "extra_vars": variables}
    before = service.submit("ansibleplaybook", request, DEV)
    login(page, DEV, f"#/launch?from={before}")
    expect(page.get_by_label("loud")).to_have_value("1")
    expect(page.get_by_label("word", exact=True)).to_have_attribute("placeholder", "")
    _, body = body_of(service, page)
    assert body["extra_vars"] == variables


def test_pressed_twice_it_starts_once(page: Page, service: Service, login: Login, watch: Watch) -> None:
    watch.expect("ERR_FAILED|Failed to load")
    login(page, ADMIN, "#/launch?kind=adhoc&module=ping&host_pattern=dev1")
    keys: list[str | None] = []

    def lose(route: object, request: object) -> None:
        keys.append(request.headers.get("idempotency-key"))  # type: ignore[attr-defined]
        route.abort() if len(keys) == 1 else route.continue_()  # type: ignore[attr-defined]

    page.route("**/api/ansiblecommand", lose)
    page.get_by_role("button", name="Start").click()
    expect(page.get_by_role("alert")).to_contain_text("does not answer")
    body_of(service, page, ADMIN)
    assert len(keys) == 2 and keys[0] and keys[0] == keys[1]


def test_those_who_look_only_find_no_form(page: Page, service: Service, login: Login) -> None:
    login(page, AUDITOR, "#/launch")
    expect(page.get_by_text("cannot start tasks")).to_be_visible()
    expect(page.get_by_role("button", name="Start")).to_have_count(0)


@pytest.mark.by_day(1)
@pytest.mark.parametrize(("width", "scheme"), [(360, "dark"), (1920, "light")])
def test_it_fits_narrow_and_wide_pages(
    new_page: Callable[..., Page],
    service: Service,
    login: Login,
    shot: Callable[..., None],
    check_accessibility: Callable[[Page], None],
    width: int,
    scheme: str,
) -> None:
    page = new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    login(page, DEV, "#/launch?kind=playbook&playbook_dir=.&playbook=ask.yml&inventory=")
    page.get_by_label("size").select_option("small")
    page.get_by_label("db_password").fill(HUSH)
    page.get_by_text("Groups and hosts").click()
    expect(page.get_by_role("button", name="dev2")).to_be_visible()
    preview(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    check_accessibility(page)
    shot(f"launch-{width}-{scheme}", page, full=True)


def test_it_works_by_keyboard_alone(page: Page, service: Service, login: Login) -> None:
    login(page, DEV, "#/launch?kind=adhoc")
    page.get_by_label("Hosts", exact=True).focus()
    page.keyboard.type("dev1")
    page.keyboard.press("Tab")
    page.keyboard.type("ping")
    page.keyboard.press("Enter")
    page.wait_for_url(re.compile(r"#/tasks/[0-9a-f-]{36}"))


# Over a server alone: nothing is started


UNCOVERED = """field => {
  const box = field.getBoundingClientRect();
  return document.elementFromPoint(box.x + box.width / 2, box.y + box.height / 2) === field;
}"""
AT_THE_END = "field => field.scrollIntoView({block: 'end'})"


def test_what_is_wrong_is_said_at_the_buttons_and_no_field_is_under_them(
    new_page: Callable[..., Page], web: Records, login: Login, shot: Callable[..., None]
) -> None:
    page = new_page(viewport={"width": 360, "height": 640})
    login(page, ADMIN, "#/launch?kind=adhoc&host_pattern=dev1&forks=many", url=web.url)
    forks = page.get_by_label("Forks")
    page.get_by_label("Verbosity").focus()
    # Under the bar, as far as the browser is concerned in sight.
    page.evaluate("document.documentElement.style.scrollPaddingBottom = ''")
    forks.evaluate(AT_THE_END)
    page.get_by_role("button", name="Start").click()
    expect(forks).to_be_focused()
    assert forks.evaluate(UNCOVERED)
    said = page.get_by_role("alert")
    expect(said).to_be_in_viewport(ratio=1)
    expect(said).to_contain_text("Nothing was sent: 1 field must be corrected.")
    expect(said).to_contain_text("Forks This has to be a whole number.")
    shot("launch-refused-360", page)
    forks.fill("5")
    expect(said).to_have_count(0)
    # The same for who goes from field to field by keyboard.
    expect(page.locator(".launch-error")).to_be_hidden()
    forks.evaluate(AT_THE_END)
    page.get_by_label("Limit", exact=True).evaluate("field => field.focus({preventScroll: true})")
    page.keyboard.press("Tab")
    expect(forks).to_be_focused()
    assert forks.evaluate(UNCOVERED)


def test_what_a_user_may_not_do_is_not_offered(
    new_page: Callable[..., Page], web: Records, login: Login, shot: Callable[..., None]
) -> None:
    for user, count in ((ADMIN, 1), (LIMITED, 0)):
        page = new_page()
        login(page, user, "#/launch?kind=playbook", url=web.url)
        page.get_by_text("More options").click()
        page.get_by_text("Passwords and secret variables").click()
        expect(page.get_by_label("Vault password")).to_be_visible()
        for label in ("Become", "Become user", "Become password", "Pull the checkout first"):
            expect(page.get_by_label(label, exact=True)).to_have_count(count)
    shot("launch-limited", page, full=True)


def test_where_there_is_no_playbook_one_reads_where_to_put_them(
    new_page: Callable[..., Page], web: Records, login: Login
) -> None:
    page = new_page()
    login(page, ADMIN, "#/launch?kind=playbook", url=web.url)
    expect(page.get_by_text(f"No playbooks in {web.folder}: put some there.")).to_be_visible()
    page = new_page()
    login(page, LIMITED, "#/launch?kind=playbook", url=web.url)
    expect(page.get_by_text("or ask an admin which ones you may start.")).to_be_visible()
