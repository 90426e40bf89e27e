"""Requests whose answer is wanted at a callback, and how it gets there. Imports headers and problems.

Callbacks and outbox are in ``webhooks``, which is loaded only if it is switched on.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from starlette.requests import Request

from triage_server.audit_chain import End
from triage_server.negotiation import prefers
from triage_server.problems import RequestError
from triage_server.record import Answered

if TYPE_CHECKING:
    from triage_server.webhooks.acceptance import WebhookService
    from triage_server.webhooks.callbacks import Callback

_PREFERENCE = "respond-async"


@dataclass(frozen=True, slots=True)
class Kept:
    """What is replied for a case whose answer is in the outbox."""

    document: bytes
    """The case's status, as JSON."""
    headers: dict[str, str]


@dataclass(frozen=True, slots=True)
class Later:
    """One request whose answer goes to a callback."""

    request: Request
    webhooks: WebhookService
    callback: Callback

    def number(self, found: Answered, line: Mapping[str, object], repeat_key: str | None) -> Answered:
        """The answer with its case id added; a repeated answer keeps the id it has.

        Args:
            found: the answer.
            line: of the audit log, with the hashes of the inputs.
            repeat_key: Idempotency-Key of the request; None: none was sent.
        """
        caller = self.request.state.caller.name
        inputs = json.dumps(line, sort_keys=True)
        case_id = found.fields.get("case_id") or self.webhooks.case_id(caller, repeat_key, inputs)
        return replace(found, fields={**found.fields, "case_id": case_id})

    async def leave(self, found: Answered, end: End | None) -> Kept:
        """Put a recorded answer into the outbox.

        Raises:
            RequestError: the outbox cannot take it.
        """
        assert end is not None, "there are no callbacks without an audit log"
        case_id, state = str(found.fields["case_id"]), self.request.state
        who = (state.caller.name, state.request_id)
        document = await self.webhooks.accept(self.callback, case_id, who, end.head, found.body)
        headers = {"Location": f"/v1/cases/{case_id}"}
        if "callback" not in self.request.query_params:
            headers["Preference-Applied"] = _PREFERENCE
        return Kept(document, headers)


@contextmanager
def asked(
    request: Request, webhooks: WebhookService | None, line: dict[str, object]
) -> Iterator[Later | None]:
    """The callback that a request asks for, with room reserved in the outbox; None: it waits for its answer.

    Args:
        request: with the name of a callback in its query, or with ``Prefer: respond-async``.
        webhooks: None: no callback is configured.
        line: of the audit log; gets the callback's name, which is part of what a repeat must match.

    Raises:
        RequestError: no such callback for this caller, or no room for one more answer.
    """
    names = request.query_params.getlist("callback") if request.scope["query_string"] else []
    if len(names) > 1 or (names and webhooks is None):
        raise RequestError("callback_not_known")
    callback = None
    if webhooks is not None and (names or prefers(request.headers.getlist("prefer"), _PREFERENCE)):
        callback = webhooks.callback(names[0] if names else None, request.state.caller.name)
    if webhooks is None or callback is None:
        yield None
        return
    line["callback"] = callback.name
    with webhooks.room(callback):
        yield Later(request, webhooks, callback)
