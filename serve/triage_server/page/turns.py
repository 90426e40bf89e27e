"""One after the other, where several want to change the same case. Imports the standard library."""

from __future__ import annotations

import asyncio
from weakref import WeakValueDictionary


class Turns:
    """A lock for each case, as long as somebody has it or waits for it. Belongs to the event loop.

    Between what is found of a case, its line in the audit log and the change itself, nobody else may change
    it: the line would speak of what was not done, or be done to another case than the one that was shown.
    """

    def __init__(self) -> None:
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    def of(self, number: str) -> asyncio.Lock:
        """The lock of the case of this number, for ``async with``."""
        return self._locks.setdefault(number, asyncio.Lock())
