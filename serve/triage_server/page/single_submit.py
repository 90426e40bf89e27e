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

from triage_server.page.forms import CSRF_FIELD, Form

FORM_ID_FIELD = "form_id"
"""Name of the field; its value is new and random for each page that is shown."""
_MAX_JOBS = 10_000
_Key = tuple[str, str, bytes]
"""Sender, path, and hash of the form's id."""


@dataclass(slots=True)
class _Job:
    """What a form asked for when it was last sent, in progress or done."""

    content: bytes
    """Hash of the form."""
    result: asyncio.Future[str]
    waiters: int = 0
    """Requests still waiting for the result."""


class SingleSubmit:
    """Forms that were sent, and their results. Belongs to the event loop."""

    def __init__(self) -> None:
        self._jobs: OrderedDict[_Key, _Job] = OrderedDict()
        """In progress or done; a form that was refused may be sent again."""

    async def run(
        self,
        sender: str,
        path: str,
        form: Form,
        work: Callable[[], Awaitable[str]],
        release: Callable[[], None],
    ) -> str:
        """Do what a form asks for; if the same form was sent before, return that result.

        Only the last content counts as sent before: a browser may show an old page again, to somebody who
        corrects an entry and then corrects it back.
        Work in progress belongs to all requests that wait for it, and continues while any of them does.

        Args:
            sender: who sent the form, in whichever session.
            path: to which it was sent.
            form: as sent; one without an id is processed each time.
            work: returns the result. It may raise; it is cancelled when the last waiting request has gone.
                Then it has not been done.
            release: called if another request did the work or is doing it: this form's content is not needed.
                If that work fails, so does this request.
        """
        form_id = form.get(FORM_ID_FIELD)
        if not form_id:
            return await work()
        content = await asyncio.to_thread(_digest, form)
        key = (sender, path, sha256(form_id.encode()).digest())
        job = self._jobs.get(key)
        if job is not None and job.content == content:
            release()
        else:
            job = self._jobs[key] = _Job(content, asyncio.ensure_future(work()))
            self._jobs.move_to_end(key)
            while len(self._jobs) > _MAX_JOBS:
                self._jobs.popitem(last=False)
        job.waiters += 1
        try:
            return await asyncio.shield(job.result)
        except BaseException:
            job.waiters -= 1
            cancelled = job.waiters == 0 and job.result.cancel()
            if (cancelled or _has_failed(job.result)) and self._jobs.get(key) is job:
                del self._jobs[key]
            if cancelled:
                await asyncio.wait({job.result})
            raise


def _has_failed(work: asyncio.Future[str]) -> bool:
    return work.done() and (work.cancelled() or work.exception() is not None)


def _digest(form: Form) -> bytes:
    """Tells two forms apart. Runs on a thread: photographs take some milliseconds, with the GIL released."""
    content = {name: value for name, value in form.fields.items() if name != CSRF_FIELD}  # of a session
    digest = sha256(repr(sorted(content.items())).encode())
    for image in form.images:
        digest.update(sha256(image).digest())
    return digest.digest()


def new_form_id() -> str:
    """The id for the forms of one page."""
    return secrets.token_urlsafe(16)
