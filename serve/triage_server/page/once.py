"""That a form which is sent twice is done once: a double click must not make two cases of one.

Imports the forms. What was done is remembered in memory, as sessions are, and as long as one may last.
"""

from __future__ import annotations

import asyncio
import secrets
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from hashlib import sha256

from triage_server.page.forms import Sent

FORM_ID = "form_id"
"""Name of the field; what it holds is drawn anew for each page that is shown."""
_MOST = 10_000
_Key = tuple[str, str, bytes]


@dataclass(slots=True)
class _Doing:
    """What a form asked for, under way or done."""

    work: asyncio.Future[str]
    waiting: int = 0
    """Requests that have not gone before they were told."""


class Once:
    """Forms that were sent, and what came of them. Belongs to the event loop."""

    def __init__(self) -> None:
        self._done: OrderedDict[_Key, _Doing] = OrderedDict()
        """Under way or done; what was refused may be sent again."""

    async def do(
        self,
        session: str,
        path: str,
        sent: Sent,
        work: Callable[[], Awaitable[str]],
        let_go: Callable[[], None],
    ) -> str:
        """Do what a form asks for, or say what came of it when it was asked for first.

        The same form with anything else in it is another one: a browser may show a page again as it was. What
        is under way belongs to all who wait for it: it goes on while one of them is there.

        Args:
            session: that sent it.
            path: to which it was sent.
            sent: the form; one without an id is done each time.
            work: says what came of it; may raise, or be cancelled when the last who waited has gone, and has
                then not been done.
            let_go: called if another did it or does it, which is waited for, and fails this one where it
                fails: what the form holds is needed no more.
        """
        if not sent.get(FORM_ID):
            return await work()
        key = (session, path, await asyncio.to_thread(_digest, sent))
        doing = self._done.get(key)
        if doing is not None:
            let_go()
        else:
            doing = self._done[key] = _Doing(asyncio.ensure_future(work()))
            while len(self._done) > _MOST:
                self._done.popitem(last=False)
        doing.waiting += 1
        try:
            return await asyncio.shield(doing.work)
        except BaseException:
            doing.waiting -= 1
            given_up = doing.waiting == 0 and doing.work.cancel()
            if (given_up or _failed(doing.work)) and self._done.get(key) is doing:
                del self._done[key]
            if given_up:
                await asyncio.wait({doing.work})
            raise


def _failed(work: asyncio.Future[str]) -> bool:
    return work.done() and (work.cancelled() or work.exception() is not None)


def _digest(sent: Sent) -> bytes:
    """Tells two forms apart. Runs on a thread: photographs take some milliseconds, with the lock let go."""
    found = sha256(repr(sorted(sent.fields.items())).encode())
    for image in sent.images:
        found.update(sha256(image).digest())
    return found.digest()


def new_form_id() -> str:
    """What the forms of one page carry."""
    return secrets.token_urlsafe(16)
