"""Two requests compared: what differs is named by its path, and what is equal costs no path."""

from __future__ import annotations

from typing import Any

import pytest

from flansible.history.request_differences import request_differences
from tests.helpers.counted_names import CountedName


@pytest.mark.parametrize(
    ("body", "other", "differences"),
    [
        ({"a": 1, "b": {"c": 2}}, {"b": {"c": 2}, "a": 1}, []),
        ({"a": 1}, {"b": 2}, [("a", 1, None), ("b", None, 2)]),
        ({"a": None, "b": 1}, {"b": 1}, []),
        ({"a": {"b": 1, "c": [1, 2]}}, {"a": {"b": 1, "c": [1]}}, [("a.c", [1, 2], [1])]),
        ({"a": {"b": 1}}, {"a": 2}, [("a.b", 1, None), ("a", None, 2)]),
        ({"a": {}}, {"a": {"b": 1}}, [("a.b", None, 1), ("a", {}, None)]),
        ({"a": {}, "b": 1}, {"b": 1}, [("a", {}, None)]),
    ],
)
def test_fields_that_differ_are_named_with_both_values(
    body: dict[str, Any], other: dict[str, Any], differences: list[tuple[str, Any, Any]]
) -> None:
    assert [(one.field, one.value, one.other_value) for one in request_differences(body, other)] == differences


def test_a_path_is_made_for_each_field_that_is_listed_and_no_other() -> None:
    name = CountedName("x" * 1000)
    same = {name: {f"a{number}": number for number in range(10_000)}}
    assert request_differences(same, {name: {**same[name], "a9": 0}})[0].field == "x" * 299 + "…"
    assert name.copies == 1
    assert len(request_differences(same, {name: {}})) == 500
    assert name.copies == 501
