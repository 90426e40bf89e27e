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

from triage_server.audit_chain import ChainEnd
from triage_server.negotiation import prefers
from triage_server.problems import RequestError
from triage_server.record import SentAnswer

if TYPE_CHECKING:
    from triage_server.webhooks.acceptance import WebhookService
    from triage_server.webhooks.callbacks import Callback

_PREFERENCE = "respond-async"


@dataclass(frozen=True, slots=True)
class AcceptedReply:
    """What is replied for a case whose answer is in the outbox."""

    document: bytes
    """The case's status, as JSON."""
    headers: dict[str, str]


@dataclass(frozen=True, slots=True)
class CallbackRequest:
    """One request whose answer goes to a callback."""

    request: Request
    webhooks: WebhookService
    callback: Callback

    def with_case_id(
        self, result: SentAnswer, audit_fields: Mapping[str, object], idempotency_key: str | None
    ) -> SentAnswer:
        """The answer with its case id added; a repeated answer keeps the id it has.

        Args:
            result: the answer.
            audit_fields: of the audit log, with the hashes of the inputs.
            idempotency_key: Idempotency-Key of the request; None: none was sent.
        """
        caller = self.request.state.caller.name
        inputs = json.dumps(audit_fields, sort_keys=True)
        case_id = result.fields.get("case_id") or self.webhooks.case_id(caller, idempotency_key, inputs)
        return replace(result, fields={**result.fields, "case_id": case_id})

    async def enqueue(self, result: SentAnswer, end: ChainEnd | None) -> AcceptedReply:
        """Put a recorded answer into the outbox.

        Raises:
            RequestError: the outbox cannot take it.
        """
        assert end is not None, "there are no callbacks without an audit log"
        case_id, state = str(result.fields["case_id"]), self.request.state
        sender = (state.caller.name, state.request_id)
        document, line = await self.webhooks.accept(self.callback, case_id, sender, end.head, result.body)
        headers = {"Location": f"/v1/cases/{case_id}", **({"X-Audit-Hash": line} if line else {})}
        if "callback" not in self.request.query_params:
            headers["Preference-Applied"] = _PREFERENCE
        return AcceptedReply(document, headers)


@contextmanager
def requested_callback(
    request: Request, webhooks: WebhookService | None, audit_fields: dict[str, object]
) -> Iterator[CallbackRequest | None]:
    """The callback that a request asks for, with room reserved in the outbox; None: it waits for its answer.

    Args:
        request: with the name of a callback in its query, or with ``Prefer: respond-async``.
        webhooks: None: no callback is configured.
        audit_fields: of the audit log; gets the callback's name, which is part of what a repeat must match.

    Raises:
        RequestError: no such callback for this caller, or no room for one more answer.
    """
    names = request.query_params.getlist("callback") if request.scope["query_string"] else []
    if len(names) > 1 or (names and webhooks is None):
        raise RequestError("callback_not_known")
    callback = None
    if webhooks is not None and (names or prefers(request.headers.getlist("prefer"), _PREFERENCE)):
        callback = webhooks.resolve_callback(names[0] if names else None, request.state.caller.name)
    if webhooks is None or callback is None:
        yield None
        return
    audit_fields["callback"] = callback.name
    with webhooks.reserve(callback):
        yield CallbackRequest(request, webhooks, callback)
