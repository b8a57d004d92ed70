"""Splits text into the words by which it is found, and finds again, in a text, what was searched for. Pure.

Both databases index the same words: runs of letters and digits, in lower case. An index has only which texts have a
word, not where. So it names candidates, and the text itself decides: `SearchTerms` looks for the terms as they were
written. `db-1.example.org` has four words; a text that has them elsewhere is no hit.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

MAX_WORD_CHARACTERS = 64
_MAX_WORD_BYTES = 800_000  # of one text: a tsvector of PostgreSQL ends at 1 MB
_WORD = re.compile(r"[^\W_]+")
_SNIPPET_BEFORE, _SNIPPET_CHARACTERS = 60, 240


def words_of(text: str) -> set[str]:
    """Returns the words of a text, as many as an index takes of one."""
    found = {word[:MAX_WORD_CHARACTERS] for word in _WORD.findall(text.lower())}
    if 4 * len(text) < _MAX_WORD_BYTES:
        return found
    kept, size = set(), 0
    for word in sorted(found, key=len):
        size += len(word.encode()) + 8
        if size > _MAX_WORD_BYTES:
            break
        kept.add(word)
    return kept


@dataclass(frozen=True)
class SearchTerms:
    """What is searched for. terms: the parts between blanks, each to be found as it was written, whatever its case;
    words: those that a text must have to be a candidate."""

    terms: tuple[re.Pattern[str], ...]
    words: tuple[str, ...]

    def missing(self, text: str) -> tuple[re.Pattern[str], ...]:
        """Returns the terms that a text does not have."""
        return tuple(term for term in self.terms if not term.search(text))

    def first_line(self, text: str) -> tuple[int, str] | None:
        """Finds the first line that has all terms; returns where it begins, and the line."""
        # The longest term is likely the rarest.
        rarest = max(self.terms, key=lambda term: len(term.pattern))
        position = 0
        while found := rarest.search(text, position):
            start = text.rfind("\n", 0, found.start()) + 1
            end = text.find("\n", found.end())
            end = len(text) if end < 0 else end
            line = text[start:end]
            if not self.missing(line):
                return start, line
            position = end
        return None

    def snippet(self, text: str) -> str:
        """Cuts out of a text what surrounds the first term in it."""
        places = [found.start() for term in self.terms if (found := term.search(text))]
        start = max(0, min(places, default=0) - _SNIPPET_BEFORE)
        if len(text) <= _SNIPPET_CHARACTERS:
            return text
        start = min(start, len(text) - _SNIPPET_CHARACTERS)
        end = start + _SNIPPET_CHARACTERS
        return f"{'…' if start else ''}{text[start:end]}{'…' if end < len(text) else ''}"


def parse(text: str) -> SearchTerms | None:
    """Parses what a user searches for; None where it has no letter and no digit."""
    words = tuple(sorted(words_of(text)))
    if not words:
        return None
    return SearchTerms(tuple(map(_term, {term.lower(): term for term in text.split()}.values())), words)


def _term(term: str) -> re.Pattern[str]:
    # A word that is searched for is a whole word in the text, too.
    before = r"(?<![^\W_])" if _WORD.match(term[0]) else ""
    after = r"(?![^\W_])" if _WORD.match(term[-1]) else ""
    return re.compile(f"{before}{re.escape(term)}{after}", re.IGNORECASE)
