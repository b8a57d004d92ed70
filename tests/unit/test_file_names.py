"""Names of files that are no UTF-8, as text and back."""

from __future__ import annotations

import os

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from flansible.models.file_names import escape, unescape

# Pieces that escapes are made of, so that many of the names look like escapes or become some.
NAMES = st.lists(
    st.sampled_from([b"\\", b"x", b"5", b"C", b"c", b"e", b"9", b"\xe9", b"\xc3", b"\xa9", b"\xed\xa0\x80", b"/"])
    | st.binary(min_size=1, max_size=3).filter(lambda piece: b"\0" not in piece)
).map(b"".join)


@given(NAMES)
@example(b"\\x5Cx5C")
@example(b"\\x\xe9")
@example(b"\\\\xE9")
def test_every_name_comes_back_and_is_text_on_the_way(name: bytes) -> None:
    text = escape(os.fsdecode(name))
    assert text.encode().decode() == text
    assert unescape(text) == os.fsdecode(name)
    assert escape(unescape(text)) == text


@given(NAMES.map(lambda name: name.decode(errors="replace")))
def test_a_text_stands_for_one_name_as_python_has_it(text: str) -> None:
    """The form that os.fsdecode gives is the one that paths are compared in."""
    name = unescape(text)
    assert os.fsdecode(os.fsencode(name)) == name
    assert name.count("/") == text.count("/") and "\0" not in name


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (b"site.yml", "site.yml"),
        ("grüße/süß.yml".encode(), "grüße/süß.yml"),
        (b"caf\xe9.yml", r"caf\xE9.yml"),
        (b"\xc3", r"\xC3"),
        (rb"a\xE9.yml", r"a\x5CxE9.yml"),
        (rb"a\xe9.yml", r"a\x5Cxe9.yml"),
        (rb"a\x5C", r"a\x5Cx5C"),
        (rb"a\x41\n\\", r"a\x41\n\\"),
    ],
)
def test_only_what_has_to_be_is_escaped(name: bytes, text: str) -> None:
    assert escape(os.fsdecode(name)) == text
    assert unescape(text) == os.fsdecode(name)


@pytest.mark.parametrize("text", [r"..\x2F..", r"a\x00", r"\x2e\x2e", r"\x7b\x7b", r"\u002f", r"\x", r"\xE", "\\"])
def test_no_escape_gives_a_character_of_ascii(text: str) -> None:
    assert unescape(text) == text


def test_escapes_that_are_utf_8_together_are_the_character() -> None:
    assert unescape(r"\xC3\xA9") == unescape(r"\xc3\xa9") == "é"
