"""That a form which is sent twice is done once: a double click must not make two cases of one.

Imports the forms. What was done is remembered in memory, as sessions are, and as long as one may last.
"""

from __future__ import annotations

import asyncio
import secrets
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from triage_server.page.forms import Sent

FORM_ID = "form_id"
"""Name of the field; what it holds is drawn anew for each page that is shown."""
_MOST = 10_000
_Key = tuple[str, str, int]


@dataclass
class _Slot:
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    result: str | None = None
    """None: not done yet, or refused; then the form may be sent again."""


class Once:
    """Forms that were sent, and what came of them. Belongs to the event loop."""

    def __init__(self) -> None:
        self._slots: OrderedDict[_Key, _Slot] = OrderedDict()

    async def do(self, session: str, path: str, sent: Sent, work: Callable[[], Awaitable[str]]) -> str:
        """Do what a form asks for, or say what came of it when it was asked for first.

        The same form with anything else in it is another one: a browser may show a page again as it was.

        Args:
            session: that sent it.
            path: to which it was sent.
            sent: the form; one without an id is done each time.
            work: says what came of it; may raise, and has then not been done.
        """
        if not sent.get(FORM_ID):
            return await work()
        key = (session, path, hash((tuple(sorted(sent.fields.items())), tuple(sent.images))))
        slot = self._slots.setdefault(key, _Slot())
        while len(self._slots) > _MOST:
            self._slots.popitem(last=False)
        async with slot.turn:
            if slot.result is None:
                slot.result = await work()
            return slot.result


def new_form_id() -> str:
    """What the forms of one page carry."""
    return secrets.token_urlsafe(16)
