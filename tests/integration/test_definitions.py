"""Definitions in the database: conditions, sealed fields, rights, sets, and one audit line for each change."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import Field, ValidationError
from sqlalchemy import text

from flansible.definitions.definition_store import Action, Change, Condition, Definitions, Find, NewDefinition, etag
from flansible.definitions.kinds import KINDS, DefinitionKind
from flansible.errors import (
    AuditUnavailable,
    FieldError,
    Forbidden,
    InvalidRequest,
    NotFound,
    PreconditionFailed,
    SealError,
    Unavailable,
)
from flansible.history.definition_rows import DefinitionRows
from flansible.identity.rbac_schema import DefinitionKindName
from flansible.identity.users import ADMIN, User
from flansible.models.definition_specs import DefinitionFields, Sealed, Spec, reply_model, sealed_fields
from flansible.sealing import Sealer
from tests.helpers.history import opened

SECRET = "marker-of-a-secret"


class DoorSpec(Spec):
    """A kind of these tests: one field that is shown, two that are sealed."""

    colour: str = Field("green", max_length=20)
    key: Sealed
    note: Sealed | None = None
    shared_with: list[str] = []


DOORS = DefinitionKind("doors", "Doors", DoorSpec, "shared_with")
ROOT = User(name=ADMIN, password="x", inventories=())
ANNA = User(name="anna", password="x", inventories=(), may_define=("doors",))
BERT = User(name="bert", password="x", inventories=(), may_define=("doors",))
ANY = Condition()


class Room:
    """The definitions of one database, with the audit lines that were written."""

    def __init__(self, definitions: Definitions) -> None:
        self.definitions = definitions
        self.notes: list[tuple[str, Action]] = []
        self.refuses_notes = False

    def note(self, what: str, action: Action) -> None:
        if self.refuses_notes:
            raise AuditUnavailable("full")
        self.notes.append((what, action))

    def put(self, user: User, name: str, document: dict[str, Any], condition: Condition = ANY) -> Change:
        return self.definitions.put(user, NewDefinition(DOORS, name, document), condition, parse, self.note)

    def get(self, user: User, name: str) -> dict[str, Any]:
        return self.definitions.get(user, DOORS, name).spec

    def names(self, user: User, limit: int = 100) -> list[str]:
        found: list[str] = []
        after: str | None = ""
        while after is not None:
            page, after = self.definitions.page(user, DOORS, after, limit)
            found += [row.name for row in page]
        return found

    def apply(self, user: User, documents: dict[str, dict[str, Any]], **options: Any) -> list[tuple[str, Action]]:
        given = [NewDefinition(DOORS, name, document) for name, document in documents.items()]
        options = {"prune": False, "dry_run": False, **options}
        set_name = options.pop("set_name", "default")
        changes = self.definitions.apply(user, given, set_name, lambda _: parse, self.note, **options)
        return [(change.stored.name, change.action) for change in changes]


def parse(spec: type[Spec], document: dict[str, Any]) -> Spec:
    try:
        return spec.model_validate(document)
    except ValidationError as error:
        raise InvalidRequest(
            str(error), errors=[FieldError(str(item["loc"]), item["msg"]) for item in error.errors()]
        ) from None


@pytest.fixture
def room(history_url: str, tmp_path: Path) -> Iterator[Room]:
    with opened(history_url) as database:
        yield Room(Definitions(DefinitionRows(database), Sealer(tmp_path / "secret.key")))


def test_a_put_makes_changes_and_leaves_alone(room: Room) -> None:
    made = room.put(ROOT, "front", {"key": SECRET})
    same = room.put(ROOT, "front", {"key": SECRET})
    changed = room.put(ROOT, "front", {"key": SECRET, "colour": "red"})
    assert [made.action, same.action, changed.action] == ["created", "unchanged", "changed"]
    assert etag(made.stored) == etag(same.stored) != etag(changed.stored)
    assert changed.stored.created == made.stored.created
    assert room.get(ROOT, "front") == {"colour": "red"}
    assert room.notes == [("doors/front", "created"), ("doors/front", "changed")]


def test_a_sealed_field_is_stored_encrypted_stays_when_left_out_and_null_removes_it(
    room: Room, history_url: str
) -> None:
    room.put(ROOT, "front", {"key": SECRET, "note": f"{SECRET}-2"})
    assert room.put(ROOT, "front", {"colour": "red"}).stored.sealed_names == ("key", "note")
    assert room.put(ROOT, "front", {"note": None, "colour": "red"}).stored.sealed_names == ("key",)
    assert room.put(ROOT, "front", {"key": "another", "colour": "red"}).action == "changed"
    assert room.put(ROOT, "front", {"key": "another", "colour": "red"}).action == "unchanged"
    room.put(ROOT, "front", {"key": SECRET})
    with opened(history_url) as database, database.reading() as connection:
        rows = str(connection.execute(text("SELECT * FROM definitions")).all())
    assert "front" in rows and SECRET not in rows
    assert "key" not in reply_model(DoorSpec).model_fields and SECRET not in repr(
        room.definitions.get(ROOT, DOORS, "front")
    )


def test_what_shows_a_spec_in_a_log_leaves_sealed_fields_out() -> None:
    assert SECRET not in repr(DoorSpec(key=SECRET, note=SECRET)) + str(DoorSpec(key=SECRET))


def test_a_required_sealed_field_is_asked_for_at_first_and_when_it_is_removed(room: Room) -> None:
    with pytest.raises(InvalidRequest, match="key"):
        room.put(ROOT, "front", {"colour": "red"})
    room.put(ROOT, "front", {"key": SECRET})
    with pytest.raises(InvalidRequest, match="key"):
        room.put(ROOT, "front", {"key": None})


def test_with_another_key_file_a_definition_with_secrets_is_refused_and_one_that_gives_them_anew_is_not_lost(
    room: Room, history_url: str, tmp_path: Path
) -> None:
    room.put(ROOT, "front", {"key": SECRET})
    with opened(history_url) as database:
        other = Room(Definitions(DefinitionRows(database), Sealer(tmp_path / "other.key")))
        with pytest.raises(SealError):
            other.put(ROOT, "front", {"colour": "red"})
        assert other.get(ROOT, "front") == {}


@pytest.mark.parametrize(
    ("condition", "is_there", "holds"),
    [
        (Condition(is_new=True), False, True),
        (Condition(is_new=True), True, False),
        (Condition(if_match=("*",)), True, True),
        (Condition(if_match=("*",)), False, False),
        (Condition(if_match=('"0"',)), True, False),
        (Condition(if_match=('"0"',)), False, False),
    ],
)
def test_a_condition_that_does_not_hold_changes_nothing(
    room: Room, condition: Condition, is_there: bool, holds: bool
) -> None:
    if is_there:
        room.put(ROOT, "front", {"key": SECRET})
    before = list(room.notes)
    if holds:
        room.put(ROOT, "front", {"key": SECRET, "colour": "red"}, condition)
        assert room.get(ROOT, "front") == {"colour": "red"}
        return
    with pytest.raises(PreconditionFailed):
        room.put(ROOT, "front", {"key": SECRET, "colour": "red"}, condition)
    assert room.notes == before


def test_of_many_who_write_the_same_version_one_succeeds(room: Room) -> None:
    version = (etag(room.put(ROOT, "front", {"key": SECRET}).stored),)
    outcomes: list[str] = []
    start = threading.Barrier(8)

    def write(number: int) -> None:
        start.wait()
        try:
            room.put(ROOT, "front", {"key": SECRET, "colour": f"c{number}"}, Condition(if_match=version))
            outcomes.append("written")
        except PreconditionFailed:
            outcomes.append("412")

    threads = [threading.Thread(target=write, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["412"] * 7 + ["written"]


def test_of_many_who_make_the_same_name_one_succeeds(room: Room) -> None:
    outcomes: list[str] = []
    start = threading.Barrier(8)

    def write(user: User) -> None:
        start.wait()
        try:
            outcomes.append(room.put(user, "front", {"key": SECRET}).action)
        except Forbidden as error:
            outcomes.append(error.code)

    threads = [threading.Thread(target=write, args=(user,)) for user in (ANNA, BERT) * 4]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["created"] + ["not_owner"] * 4 + ["unchanged"] * 3


@pytest.mark.parametrize(
    "user",
    [
        User(name="c", password="x", inventories=()),
        User(name="v", password="x", inventories=(), role="viewer", may_define=("doors",)),
        User(name="a", password="x", inventories=(), role="auditor", may_define=("doors",)),
    ],
    ids=["none", "viewer", "auditor"],
)
def test_who_may_not_define_a_kind_writes_deletes_and_applies_none(room: Room, user: User) -> None:
    room.put(ROOT, "front", {"key": SECRET, "shared_with": ["ops"]})
    with pytest.raises(Forbidden):
        room.put(user, "back", {"key": SECRET})
    with pytest.raises(Forbidden):
        room.definitions.delete(user, DOORS, "front", ANY, room.note)
    with pytest.raises(Forbidden):
        room.apply(user, {"back": {"key": SECRET}})
    assert room.names(ROOT) == ["front"]


def test_a_user_changes_only_what_is_theirs_and_admin_all(room: Room) -> None:
    room.put(ANNA, "front", {"key": SECRET})
    for refused in (
        lambda: room.put(BERT, "front", {"key": "stolen"}),
        lambda: room.apply(BERT, {"front": {"key": "stolen"}, "back": {"key": SECRET}}),
    ):
        with pytest.raises(Forbidden) as caught:
            refused()
        assert caught.value.code == "not_owner" and "anna" not in str(caught.value)
    with pytest.raises(NotFound):
        room.definitions.delete(BERT, DOORS, "front", ANY, room.note)
    assert room.names(ROOT) == ["front"], "the other definition of a refused apply was written"
    assert room.put(ROOT, "front", {}).stored.owner == ADMIN


def test_owners_groups_auditors_and_admin_read_and_others_find_nothing(room: Room) -> None:
    room.put(ANNA, "front", {"key": SECRET, "shared_with": ["ops"]})
    room.put(ANNA, "mine", {"key": SECRET})
    auditor = User(name="auditor", password="x", inventories=(), role="auditor", sees="all")
    member = User(name="m", password="x", inventories=(), as_member=(User("m", "", (), entry="group:ops"),))
    # A user whose name is a group's is not in it.
    impostor = User(name="ops", password="x", inventories=())
    assert [room.names(user) for user in (ANNA, member, auditor, ROOT)] == [
        ["front", "mine"],
        ["front"],
        ["front", "mine"],
        ["front", "mine"],
    ]
    assert room.names(BERT) == room.names(impostor) == []
    messages = set()
    for name in ("front", "none"):
        with pytest.raises(NotFound) as caught:
            room.get(BERT, name)
        messages.add(str(caught.value).replace(name, "NAME"))
    assert len(messages) == 1


def test_pages_have_each_definition_once_also_where_few_may_be_read(room: Room) -> None:
    for number in range(23):
        room.put(ANNA if number % 5 == 0 else BERT, f"door{number:02}", {"key": SECRET})
    assert room.names(ANNA, limit=2) == [f"door{number:02}" for number in range(0, 23, 5)]
    assert len(room.names(ROOT, limit=7)) == 23
    page, after = room.definitions.page(ROOT, DOORS, "", 23)
    assert len(page) == 23 and after is None


def test_a_second_apply_changes_nothing_and_a_faulty_one_nothing_either(room: Room) -> None:
    documents = {"front": {"key": SECRET}, "back": {"key": SECRET, "colour": "red"}}
    assert room.apply(ROOT, documents) == [("front", "created"), ("back", "created")]
    assert room.apply(ROOT, documents) == [("front", "unchanged"), ("back", "unchanged")]
    with pytest.raises(InvalidRequest):
        room.apply(ROOT, {"front": {"colour": "blue"}, "side": {"key": SECRET}, "roof": {"colour": 3}})
    assert room.names(ROOT) == ["back", "front"] and room.get(ROOT, "front") == {}


def test_a_dry_run_says_what_would_change_and_changes_nothing(room: Room) -> None:
    room.apply(ROOT, {"front": {"key": SECRET}, "back": {"key": SECRET}})
    before = list(room.notes)
    found = room.apply(ROOT, {"front": {"colour": "red"}, "side": {"key": SECRET}}, prune=True, dry_run=True)
    assert found == [("front", "changed"), ("side", "created"), ("back", "deleted")]
    assert room.names(ROOT) == ["back", "front"] and room.get(ROOT, "front") == {} and room.notes == before


def test_prune_leaves_other_sets_and_what_was_written_by_itself(room: Room) -> None:
    room.put(ROOT, "alone", {"key": SECRET})
    room.apply(ROOT, {"a1": {"key": SECRET}, "a2": {"key": SECRET}}, set_name="a")
    room.apply(ROOT, {"b1": {"key": SECRET}}, set_name="b")
    assert room.apply(ROOT, {"a1": {}}, set_name="a", prune=True) == [("a1", "unchanged"), ("a2", "deleted")]
    assert room.names(ROOT) == ["a1", "alone", "b1"]


@pytest.mark.parametrize("dry_run", [False, True])
def test_prune_leaves_what_others_applied_with_a_set_of_the_same_name(room: Room, dry_run: bool) -> None:
    room.apply(ANNA, {"a1": {"key": SECRET}}, set_name="a")
    room.apply(BERT, {"b1": {"key": SECRET}, "b2": {"key": SECRET}}, set_name="a")
    found = room.apply(BERT, {"b1": {}}, set_name="a", prune=True, dry_run=dry_run)
    assert found == [("b1", "unchanged"), ("b2", "deleted")], "names what is another user's, or is refused"
    assert room.names(ROOT) == (["a1", "b1", "b2"] if dry_run else ["a1", "b1"])


def test_what_cannot_be_audited_is_not_written(room: Room) -> None:
    room.put(ROOT, "front", {"key": SECRET})
    room.refuses_notes = True
    actions: list[Callable[[], object]] = [
        lambda: room.put(ROOT, "front", {"colour": "red"}),
        lambda: room.put(ROOT, "back", {"key": SECRET}),
        lambda: room.definitions.delete(ROOT, DOORS, "front", ANY, room.note),
        lambda: room.apply(ROOT, {"front": {"colour": "red"}, "side": {"key": SECRET}}),
    ]
    for action in actions:
        with pytest.raises(AuditUnavailable):
            action()
    assert room.names(ROOT) == ["front"] and room.get(ROOT, "front") == {}


class Meanwhile:
    """A check during which something else happens, as often as it is asked to."""

    def __init__(self, action: Callable[[], object], times: int = 1) -> None:
        self.seen: list[str | None] = []
        self._action, self._times = action, times

    def __call__(self, given: NewDefinition, spec: Spec, find: Find) -> None:
        side = find("doors", "side")
        self.seen.append(None if side is None else side.spec.get("colour"))
        if len(self.seen) <= self._times:
            thread = threading.Thread(target=self._action)
            thread.start()
            thread.join(10)
            assert not thread.is_alive(), "waits for the check of another"


def put(room: Room, user: User, name: str, check: Meanwhile) -> Action:
    given = NewDefinition(DOORS, name, {"key": SECRET})
    return room.definitions.put(user, given, ANY, parse, room.note, check).action


@pytest.mark.parametrize("way", ["put", "apply", "dry run"])
def test_while_definitions_are_checked_others_are_written(room: Room, way: str) -> None:
    written: list[Change] = []
    check = Meanwhile(lambda: written.append(room.put(BERT, "other", {"key": SECRET})))
    if way == "put":
        assert put(room, ANNA, "front", check) == "created"
    else:
        assert room.apply(ANNA, {"front": {"key": SECRET}}, check=check, dry_run=way == "dry run") == [
            ("front", "created")
        ]
    assert [change.action for change in written] == ["created"] and len(check.seen) == 1
    assert room.names(ROOT) == (["other"] if way == "dry run" else ["front", "other"])


def test_what_changes_while_a_definition_is_checked_is_checked_again(room: Room) -> None:
    room.put(BERT, "side", {"key": SECRET, "colour": "red"})
    check = Meanwhile(lambda: room.put(BERT, "side", {"key": SECRET, "colour": "blue"}))
    assert put(room, ANNA, "front", check) == "created" and check.seen == ["red", "blue"]
    with pytest.raises(Forbidden):
        put(room, ANNA, "back", Meanwhile(lambda: room.put(BERT, "back", {"key": SECRET})))
    room.apply(ANNA, {"a1": {"key": SECRET}, "a2": {"key": SECRET}}, set_name="a")
    check = Meanwhile(lambda: room.put(ANNA, "a1", {"colour": "red"}))
    found = room.apply(ANNA, {"a1": {"colour": "red"}}, set_name="a", prune=True, check=check)
    assert found == [("a1", "unchanged"), ("a2", "deleted")] and len(check.seen) == 2


def test_what_others_keep_changing_is_refused_and_not_checked_for_ever(room: Room) -> None:
    colours = map(str, itertools.count())
    check = Meanwhile(lambda: room.put(BERT, "side", {"key": SECRET, "colour": next(colours)}), times=1000)
    with pytest.raises(Unavailable) as caught:
        put(room, ANNA, "front", check)
    assert caught.value.retry_after_seconds and len(check.seen) < 100 and room.names(ROOT) == ["side"]


def test_rbac_json_knows_the_kinds_that_there_are() -> None:
    assert get_args(DefinitionKindName) == tuple(kind.name for kind in KINDS)


def test_no_kind_has_a_field_that_every_definition_has() -> None:
    for kind in KINDS:
        assert not set(kind.spec.model_fields) & set(DefinitionFields.model_fields)
        assert kind.shared_by is None or kind.shared_by in kind.spec.model_fields
    assert sealed_fields(DoorSpec) == {"key", "note"}
