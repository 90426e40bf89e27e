"""One change to a case at a time. Imports the standard library."""

from __future__ import annotations

import asyncio
from weakref import WeakValueDictionary


class CaseLocks:
    """A lock for each case, for as long as somebody holds or awaits it. Belongs to the event loop.

    It is held from looking at a case, over the line in the audit log, to the change. Otherwise the line might
    record a change that was not made, or the change might concern a case that looks different by now.
    """

    def __init__(self) -> None:
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    def lock(self, number: str) -> asyncio.Lock:
        """The lock for the case of this number, for ``async with``."""
        return self._locks.setdefault(number, asyncio.Lock())
