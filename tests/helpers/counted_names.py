"""A key of a request that counts how often a path is made of it."""

from __future__ import annotations

from typing import Any


class CountedName(str):
    copies = 0

    def __format__(self, spec: str) -> str:
        self.copies += 1
        return super().__format__(spec)

    def __getitem__(self, key: Any) -> str:
        self.copies += 1
        return super().__getitem__(key)
