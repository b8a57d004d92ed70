"""The console's files as a browser gets them, and the output formats made for it."""

from __future__ import annotations

import gzip
import re
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import httpx
import pytest

from flansible.store import Store
from flansible.web import static_files
from tests.helpers.webserver import RecordedRun, WebServer, result

FOLDER = Path(static_files.__file__).with_name("console")
FILES = sorted(path.relative_to(FOLDER).as_posix() for path in FOLDER.rglob("*") if path.is_file())
MODULES = [name for name in FILES if name.endswith(".js")]
SHEETS = [name for name in FILES if name.endswith(".css")]


@pytest.fixture
def client(server: WebServer, store: Store) -> Iterator[httpx.Client]:
    with server.client() as client:
        yield client


def test_the_page_runs_nothing_but_files_of_its_own(server: WebServer) -> None:
    reply = httpx.get(server.url)
    policy = dict(part.split(" ", 1) for part in reply.headers["Content-Security-Policy"].split("; "))
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
    assert policy["frame-ancestors"] == policy["base-uri"] == policy["form-action"] == "'none'"
    assert "unsafe" not in reply.headers["Content-Security-Policy"]
    # Nothing inline, nothing from elsewhere, and no address that a proxy's path prefix would break.
    for found in re.findall(r'(?:src|href)="([^"]*)"', reply.text):
        assert not found.startswith(("/", "http", "//")), found
    assert not re.search(r"<script(?![^>]* src=)|<style|\son\w+=|\sstyle=", reply.text)


@pytest.mark.parametrize("name", [name for name in FILES if name != "index.html"] + ["ansi.css"])
def test_each_file_is_served_compressed_and_asked_about_again(server: WebServer, name: str) -> None:
    reply = httpx.get(f"{server.url}/console/{name}", headers={"Accept-Encoding": "gzip"})
    assert reply.status_code == 200 and reply.headers["Content-Encoding"] == "gzip"
    assert reply.headers["Cache-Control"] == "no-cache" and "Accept-Encoding" in reply.headers["Vary"]
    plain = httpx.get(f"{server.url}/console/{name}", headers={"Accept-Encoding": "identity"})
    assert "Content-Encoding" not in plain.headers and plain.content == reply.content
    assert plain.headers["ETag"] != reply.headers["ETag"]
    again = {"Accept-Encoding": "gzip", "If-None-Match": reply.headers["ETag"]}
    assert httpx.get(f"{server.url}/console/{name}", headers=again).status_code == 304
    if name in FILES:
        assert plain.content == (FOLDER / name).read_bytes()
        assert len(gzip.compress(plain.content)) < 40_000


def test_all_files_together_are_small(server: WebServer) -> None:
    """Of these the first page loads those of its view: tests/console/test_quality.py has the limit for that."""
    assert sum(len(gzip.compress((FOLDER / name).read_bytes())) for name in FILES) < 130_000


@pytest.mark.parametrize(
    "path", ["../console.py", "..%2Fconsole.py", "views", "views/", "index.html", "nothing.js", "%00"]
)
def test_nothing_else_is_served(server: WebServer, path: str) -> None:
    assert httpx.get(f"{server.url}/console/{path}").status_code == 404


@pytest.mark.parametrize("name", FILES)
def test_no_file_puts_in_markup_or_loads_from_elsewhere(name: str) -> None:
    text = (FOLDER / name).read_text(encoding="utf-8")
    for word in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "new Function", "srcdoc"):
        assert word not in text, f"{name} has {word}"
    elsewhere = [url for url in re.findall(r"https?://[\w./-]+", text) if not url.startswith("http://www.w3.org/")]
    assert elsewhere == [], name


def text_of(name: str) -> str:
    return (FOLDER / name).read_text(encoding="utf-8")


def imports_of(name: str) -> set[str]:
    """Returns the modules that a module imports, statically or on demand, as paths below the console's folder."""
    found = re.findall(r'(?:\bfrom |\bimport\()"([^"\n]+\.js)"', text_of(name))
    return {(FOLDER / name).parent.joinpath(path).resolve().relative_to(FOLDER.resolve()).as_posix() for path in found}


def test_modules_import_each_other_in_one_direction() -> None:
    graph = {name: imports_of(name) for name in MODULES}
    assert graph["main.js"] >= {"router.js", "views/tasks/tasks.js"}
    assert set().union(*graph.values()) | {"main.js"} == set(MODULES)
    list(TopologicalSorter(graph).static_order())  # raises CycleError
    views = [name for name in MODULES if name.startswith("views/")]
    assert [name for name in MODULES if "main.js" in graph[name]] == []
    across = [(name, other) for name in views for other in graph[name] if other.startswith("views/")]
    assert [pair for pair in across if Path(pair[0]).parent != Path(pair[1]).parent] == []


def test_each_sheet_is_loaded_by_its_view_alone() -> None:
    """main.js names the sheets of each view, and disables them while another one is shown."""
    views = re.findall(r"^  (\w+): {(.*?)(?:^  }|}),$", text_of("main.js"), re.MULTILINE | re.DOTALL)
    found = {name: re.findall(r'"([\w/]+\.css)"', entry) for name, entry in views}
    for name, sheets in found.items():
        assert all(sheet.startswith(f"views/{name}/") for sheet in sheets if sheet != "ansi.css"), name
        assert f"views/{name}/{name}.css" in sheets
    assert sorted(sum(found.values(), [])) == sorted({*SHEETS, "ansi.css"} - {"base.css"})
    assert not re.search(r":nth-", "".join(text_of(name) for name in SHEETS))  # areas have names


def test_no_two_modules_have_one_name() -> None:
    names = [Path(name).name for name in MODULES + SHEETS]
    assert sorted(set(names)) == sorted(names)


def test_a_fragment_is_text_and_spans_with_a_class(client: httpx.Client, store: Store) -> None:
    run = RecordedRun(store)
    run.write(
        b"ok: [<script>alert(1)</script>]\n\x1b[31mred & \x1b[1mbold\x1b[0m\n\xff\x1b]8;;javascript:alert(1)\x1b\\x\n"
    )
    reply = client.get(run.output_path, params={"format": "fragment"})
    assert reply.headers["Content-Type"].startswith("text/html")
    assert set(re.findall(r"<[^>]*>", reply.text)) <= {
        '<span class="ansi31">',
        '<span class="ansi31 ansi1">',
        "</span>",
    } | {found for found in re.findall(r"<[^>]*>", reply.text) if re.fullmatch(r'<span class="[ansi0-9 -]+">', found)}
    assert "&lt;script&gt;" in reply.text and reply.text.count("\n") >= 3
    assert "default-src 'none'" in reply.headers["Content-Security-Policy"]


@pytest.mark.parametrize("form", ["txt", "ansi", "fragment"])
def test_output_can_be_asked_for_from_one_byte_to_another(client: httpx.Client, store: Store, form: str) -> None:
    run = RecordedRun(store)
    run.write(b"".join(b"line %03d\n" % number for number in range(100)))
    reply = client.get(run.output_path, params={"format": form, "offset": 9, "end": 27})
    assert reply.text.splitlines() == ["line 001", "line 002"]
    assert (reply.headers["Flansible-Next-Offset"], reply.headers["Flansible-Final"]) == ("27", "false")
    run.end()
    assert client.get(run.output_path, params={"format": form, "end": 9}).headers["Flansible-Final"] == "false"
    whole = client.get(run.output_path, params={"format": form, "end": 900})
    assert whole.headers["Flansible-Final"] == "true" and whole.text.count("line") == 100
    assert client.get(run.output_path, params={"format": form, "offset": 50, "end": 20}).text.strip() == ""


def test_a_fragment_has_an_end_of_its_own(client: httpx.Client, store: Store) -> None:
    run = RecordedRun(store)
    run.write(b"0123456789abcde\n" * 20_000)
    reply = client.get(run.output_path, params={"format": "fragment", "follow": "true"})
    assert reply.headers["Flansible-Next-Offset"] == str(256 * 1024)
    assert reply.text.count("\n") == 16 * 1024


def test_events_without_results_are_all_there_but_for_these(client: httpx.Client, store: Store) -> None:
    run = RecordedRun(store)
    run.write(b"", result("a", "failed", big="x" * 1000), result("b"))
    run.end()
    whole = client.get(run.events_path).json()["events"]
    light = client.get(run.events_path, params={"results": "false"}).json()["events"]
    assert light == [{name: value for name, value in event.items() if name != "result"} for event in whole]
    assert "result" in whole[0]
    headers = {"Accept": "text/event-stream"}
    assert '"result"' not in client.get(run.events_path, params={"results": "false"}, headers=headers).text
