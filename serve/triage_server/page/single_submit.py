"""Processes a form only once: a double click must not make two cases of one.

Imports the forms. The newest results are kept in memory, until the process ends.
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
"""Name of the field; its value is new and random for each page that is shown."""
_MOST = 10_000
_Key = tuple[str, str, bytes]


@dataclass(slots=True)
class _Doing:
    """What a form asked for, in progress or done."""

    work: asyncio.Future[str]
    waiting: int = 0
    """Requests still waiting for the result."""


class Once:
    """Forms that were sent, and their results. Belongs to the event loop."""

    def __init__(self) -> None:
        self._done: OrderedDict[_Key, _Doing] = OrderedDict()
        """In progress or done; a form that was refused may be sent again."""

    async def do(
        self,
        session: str,
        path: str,
        sent: Sent,
        work: Callable[[], Awaitable[str]],
        let_go: Callable[[], None],
    ) -> str:
        """Do what a form asks for; if the same form was sent before, return that result.

        The same form with any other content is another form, because a browser may show an old page again.
        Work in progress belongs to all requests that wait for it, and continues while any of them does.

        Args:
            session: that sent the form.
            path: to which it was sent.
            sent: the form; one without an id is processed each time.
            work: returns the result. It may raise; it is cancelled when the last waiting request has gone.
                Then it has not been done.
            let_go: called if another request did the work or is doing it: this form's content is not needed.
                If that work fails, so does this request.
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
    """Tells two forms apart. Runs on a thread: photographs take some milliseconds, with the GIL released."""
    found = sha256(repr(sorted(sent.fields.items())).encode())
    for image in sent.images:
        found.update(sha256(image).digest())
    return found.digest()


def new_form_id() -> str:
    """The id for the forms of one page."""
    return secrets.token_urlsafe(16)
