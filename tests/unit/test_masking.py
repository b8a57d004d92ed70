"""The values of secret fields in what a run says: whatever form they take and wherever a chunk ends."""

from __future__ import annotations

import base64
import json
import random
from urllib.parse import quote

import pytest

from flansible.models import Secrets
from flansible.store import ColourMark
from flansible.worker.masking import Masker

PASSWORD = "s3cr&t \"quoted\" 'pass' \\wörd"
KEY = (
    "-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXktdjEAAAAABG5v\nbmUAAAAEbm9uZQAAAAAAAAABAAAA\n-----END X-----\n"
)


def masker(*, password: str = PASSWORD, key: str | None = None) -> Masker:
    return Masker(Secrets(connection_password=password, private_key=key, vault_passwords={"a": "vaultword"}))


def shown(one: Masker, *chunks: bytes) -> bytes:
    return b"".join(one.feed(chunk, [])[0] for chunk in chunks) + one.finish()[0]


@pytest.mark.parametrize(
    "form",
    [
        PASSWORD,
        json.dumps(PASSWORD),
        json.dumps(PASSWORD, ensure_ascii=False),
        json.dumps(json.dumps(PASSWORD)),
        repr(PASSWORD),
        quote(PASSWORD),
        quote(PASSWORD, safe=""),
        base64.b64encode(PASSWORD.encode()).decode(),
    ],
)
def test_a_secret_is_hidden_in_every_form_and_no_offset_moves(form: str) -> None:
    text = f"before {form} after\n".encode()
    hidden = shown(masker(), text)
    assert len(hidden) == len(text)
    assert hidden.startswith(b"before ") and hidden.endswith(b" after\n")
    assert hidden.count(b"*") >= len(form.strip("'\"").encode()) - 4  # quotes around it, and Base64's = stay


def test_wherever_the_chunks_end_the_result_is_the_same() -> None:
    text = (f"a {PASSWORD} vaultword vaultwor\nd vaultwordvaultword" * 20).encode()
    whole = shown(masker(), text)
    assert b"vaultword" not in whole and b"vaultwor\nd" in whole
    assert shown(masker(), *(text[place : place + 1] for place in range(len(text)))) == whole
    numbers = random.Random(6)
    for _ in range(100):
        cuts = sorted(numbers.sample(range(len(text)), 30))
        chunks = [text[begin:end] for begin, end in zip([0, *cuts], [*cuts, len(text)], strict=True)]
        assert shown(masker(), *chunks) == whole


def test_a_secret_that_begins_like_another_leaves_nothing_of_the_longer_one() -> None:
    one = Masker(Secrets(connection_password="abcd", become_password="abcdefgh"))
    assert shown(one, b"x abcd", b"efgh y abcd", b"ef\n") == b"x ******** y ****ef\n"


def test_a_finished_line_never_waits() -> None:
    one = masker(password="two\nlines of it")
    assert one.feed(b"a line\n", [])[0] == b"a line\n"
    assert shown(one, b"two\n  lines of it\n") == b"two\n  ***********\n"


def test_colours_wait_with_the_text_they_are_for() -> None:
    one = Masker(Secrets(connection_password="password"))
    assert one.feed(b"x pass", [ColourMark(2, "0;32")]) == (b"x ", [])
    assert one.feed(b"word\n", [ColourMark(10, "0")]) == (b"********\n", [ColourMark(2, "0;32"), ColourMark(10, "0")])


def test_each_line_of_a_private_key_is_hidden() -> None:
    hidden = shown(masker(key=KEY), json.dumps({"key": KEY}).encode(), b"\n", KEY.replace("\n", "\n    ").encode())
    assert b"b3Blbn" not in hidden and b"bmUAAA" not in hidden
    assert b"-----BEGIN OPENSSH PRIVATE KEY-----" in hidden


def test_the_passphrase_of_a_key_and_the_key_decrypted_with_it_are_hidden() -> None:
    one = Masker(Secrets(private_key=KEY, private_key_passphrase="pass phrase"))
    assert shown(one, b"pass phrase\n") == b"***********\n"
    one.hide_key(["-----BEGIN X-----", "ZGVjcnlwdGVkIGxpbmUgb2YgdGhlIGtleQ", "short"])
    hidden = shown(one, b"pass phrase short ZGVjcnlwdGVkIGxpbmUgb2YgdGhlIGtleQ b3BlbnNzaC1rZXktdjEAAAAABG5v\n")
    assert hidden == b"*********** short " + b"*" * 34 + b" " + b"*" * 28 + b"\n"


def test_events_have_it_neither_in_values_nor_in_names() -> None:
    event = {
        "event": "host_result",
        "verdict": "ok",
        "task": "use vaultword",
        "result": {"vaultword": ["a vaultword", {"x": 1.5, "n": None}], "same": True},
        "offset": 3,
    }
    stars = "*" * 9
    assert masker().event(event) == {
        **event,
        "task": f"use {stars}",
        "result": {stars: [f"a {stars}", {"x": 1.5, "n": None}], "same": True},
    }
    assert masker(password="1234567").event({"result": 1234567, "offset": 12}) == {"result": "*" * 7, "offset": 12}


def test_our_own_words_stay_and_short_ones_are_left() -> None:
    one = Masker(Secrets(connection_password="abc", become_password="host_result"))
    assert one.event({"event": "host_result", "host": "abc"}) == {"event": "host_result", "host": "abc"}
    assert shown(one, b"abc host_result") == b"abc ***********"


def test_without_secrets_nothing_is_touched() -> None:
    for one in (Masker(None), Masker(Secrets())):
        assert one.feed(b"as it is", [ColourMark(0, "0")]) == (b"as it is", [ColourMark(0, "0")])
        assert one.event({"a": 1}) == {"a": 1}


@pytest.mark.parametrize(("password", "value"), [("123456", 123456), ("3.14159", 3.14159)])
def test_a_secret_that_is_a_number_is_hidden_in_events(password: str, value: float) -> None:
    masker = Masker(Secrets(connection_password=password))
    assert masker.event({"event": "host_result", "result": {"a": value}})["result"] == {"a": "*" * len(password)}
