"""The client's protocol without a socket: requests out, replies in, pauses between.

Imports httpx's types and the schema of the answer. Both clients drive the same generator, so both retry in
the same way.
"""

from __future__ import annotations

import random
import re
import secrets
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

import httpx
from pydantic import BaseModel, ValidationError

from lesion_triage.bundle.document import Document
from lesion_triage.bundle.history import NO_HISTORY, History
from lesion_triage.bundle.retry_after import requested_pause_s
from lesion_triage.bundle.schema import Answer
from lesion_triage.errors import LesionTriageError

_RETRYABLE = frozenset({408, 429, 502, 503, 504})
"""Statuses after which the same request is retried."""
_LONGEST_PAUSE_S = 60.0
_MOST_DOUBLINGS = 64
"""Of a pause; 2.0 to the number of attempts overflows after a thousand."""
_IDEMPOTENCY_KEY = re.compile(r"[A-Za-z0-9._-]{16,64}")

Parsed = TypeVar("Parsed")
Model = TypeVar("Model", bound=BaseModel)
Action = httpx.Request | float
"""A request to send, or seconds to wait."""
Reply = httpx.Response | Exception | None


class TriageError(LesionTriageError):
    """A case got no answer. It must still be read: queue it as band 1."""


class RefusedError(TriageError):
    """The server refused the case.

    Attributes:
        status: HTTP status.
        code: stable; docs/http-api.md lists them. ``unknown`` if the reply was no problem document.
        index: position of the photograph at fault, from 0; None if the fault is elsewhere.
        request_id: the operator finds it in the server's log; None if the reply had none.
    """

    def __init__(self, response: httpx.Response) -> None:
        problem = _problem(response)
        self.status = response.status_code
        self.code = str(problem.get("code", "unknown"))
        index = problem.get("index")
        self.index: int | None = index if type(index) is int and index >= 0 else None
        self.request_id = response.headers.get("x-request-id")
        detail = problem.get("detail") or ("The reply is not a problem document; is this the right address?")
        super().__init__(f"{self.status} {self.code}: {detail}")


class UnansweredError(TriageError):
    """No readable answer: not asked, no connection, too late, damaged, or from another version."""


@dataclass(frozen=True, slots=True)
class Triaged:
    """An answered case."""

    answer: Answer
    audit_hash: str | None
    """Hash of the answer's line in the server's audit log; store it with the answer. None: no audit log."""
    request_id: str | None
    """As in the server's log; None if the reply had none."""


class Submitted(Document):
    """Status of a case whose answer the server delivers to a callback.

    A case has a status only once it has been scored and recorded.
    """

    case_id: str
    """Also the ``webhook-id`` of every delivery."""
    callback: str
    state: Literal["pending", "delivered", "undelivered"]
    accepted_at: str
    """UTC, ISO 8601."""
    attempts: int
    """Deliveries tried so far."""
    last_status: int | None
    """Status that the receiver answered with; None: no answer, or none that is HTTP."""
    settled_at: str | None
    """When it was delivered or given up, UTC, ISO 8601; None: not yet."""
    audit_hash: str | None
    """As in ``Triaged``."""
    answer: Answer | None
    """None if the server can no longer decrypt it."""


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often and for how long to retry.

    A retry under the same Idempotency-Key gets the same answer, so it costs only time.
    """

    retries: int = 4
    """After the first attempt."""
    first_pause_s: float = 0.5
    """Doubled for each retry, with jitter; a longer Retry-After is obeyed, up to a minute."""
    random: random.Random = field(default_factory=random.SystemRandom)

    def pause_s(self, attempts: int, retry_after: str) -> float:
        """Seconds to wait after ``attempts`` attempts; ``retry_after`` is the header, empty if none came."""
        backoff_s = (
            self.first_pause_s * 2.0 ** min(attempts - 1, _MOST_DOUBLINGS) * (1 + self.random.random())
        )
        return min(_LONGEST_PAUSE_S, max(backoff_s, requested_pause_s(retry_after)))


def case_request(
    client: httpx.Client | httpx.AsyncClient,
    images: Sequence[bytes],
    history: History,
    idempotency_key: str | None,
    callback: str | None = None,
) -> Callable[[], httpx.Request]:
    """A function that builds the request for one case, the same each time it is called.

    Args:
        client: client whose base address and headers the request gets.
        images: the files of the photographs, in order.
        history: what is known beside the photographs.
        idempotency_key: of this case; None: a new one.
        callback: name of the callback for the answer; None: wait for the answer.

    Raises:
        UnansweredError: the server would refuse this idempotency key, so nothing is sent.
    """
    key = secrets.token_hex(16) if idempotency_key is None else idempotency_key
    if not (isinstance(key, str) and _IDEMPOTENCY_KEY.fullmatch(key)):
        found = (
            f"other characters or another length ({len(key)})" if isinstance(key, str) else type(key).__name__
        )
        raise UnansweredError(
            "idempotency_key: expected text of 16 to 64 of A-Z, a-z, 0-9, '.', '_' and '-', "
            f"found {found}; nothing was sent, so queue the case as of band 1."
        )
    headers = {"Idempotency-Key": key}
    files: list[tuple[str, Any]] = [("image", ("photograph", data)) for data in images]
    if history != NO_HISTORY:
        text = history.model_dump_json(exclude_none=True).encode()
        files.append(("history", ("history", text, "application/json")))
    params = {} if callback is None else {"callback": callback}
    return lambda: client.build_request("POST", "v1/triage", params=params, files=files, headers=headers)


def send_with_retries(
    request: Callable[[], httpx.Request], retry_policy: RetryPolicy, parse: Callable[[httpx.Response], Parsed]
) -> Generator[Action, Reply, Parsed]:
    """Send one request until it is answered or finally refused.

    Args:
        request: builds it.
        retry_policy: how often to retry.
        parse: parses the reply.

    Yields:
        A request to send, or seconds to wait; after a request, send back its response or its error.

    Returns:
        What ``parse`` returned.

    Raises:
        RefusedError: the server refused the request.
        UnansweredError: the server could not be reached, or its answer could not be read.
    """
    attempts = 0
    while True:
        attempts += 1
        reply = yield _build(request)
        if isinstance(reply, Exception) and not _is_worth_a_retry(reply):
            raise UnansweredError(
                f"The request cannot be sent ({type(reply).__name__}); queue the case as of band 1."
            ) from reply
        if isinstance(reply, httpx.Response) and (
            reply.status_code not in _RETRYABLE or attempts > retry_policy.retries
        ):
            return _parse(parse, reply)
        if attempts > retry_policy.retries:
            sentence = (
                f"No answer after {attempts} tries ({type(reply).__name__}); queue the case as of band 1."
            )
            raise UnansweredError(sentence)
        retry_after = reply.headers.get("retry-after", "") if isinstance(reply, httpx.Response) else ""
        yield retry_policy.pause_s(attempts, retry_after)


def _is_worth_a_retry(error: Exception) -> bool:
    """Whether sending again may help: not after an error on this side, such as a client that is closed."""
    return isinstance(error, httpx.RequestError) and not isinstance(
        error, httpx.LocalProtocolError | httpx.UnsupportedProtocol
    )


def _build(request: Callable[[], httpx.Request]) -> httpx.Request:
    try:
        return request()
    except Exception as error:  # httpx or a layer below: no address, or a header that is not ASCII
        raise UnansweredError(
            f"The request cannot be made ({type(error).__name__}); nothing was sent, so queue the case as of "
            "band 1."
        ) from error


def _parse(parse: Callable[[httpx.Response], Parsed], reply: httpx.Response) -> Parsed:
    """Turn any failure into a ``TriageError``: the caller must learn that the case has no answer."""
    try:
        return parse(reply)
    except TriageError:
        raise
    except Exception as error:
        raise UnansweredError(
            f"The answer cannot be read ({type(error).__name__}); queue the case as of band 1."
        ) from error


def parse_triaged(reply: httpx.Response) -> Triaged:
    """An answer given at once."""
    answer = _parse_document(reply, Answer, httpx.codes.OK)
    return Triaged(answer, reply.headers.get("x-audit-hash"), reply.headers.get("x-request-id"))


def parse_submitted(reply: httpx.Response) -> Submitted:
    """Status of a case that was accepted for a callback."""
    return _parse_document(reply, Submitted, httpx.codes.OK, httpx.codes.ACCEPTED)


def _parse_document(reply: httpx.Response, model: type[Model], *expected: int) -> Model:
    if reply.status_code not in expected:
        raise RefusedError(reply)
    try:
        return model.model_validate_json(reply.content)
    except ValidationError:
        raise UnansweredError(
            "The answer cannot be read by this version of the client; install the version of the server."
        ) from None


def _problem(response: httpx.Response) -> dict[str, Any]:
    try:
        problem = response.json()
    except (ValueError, RecursionError):  # not JSON, or nested too deeply
        return {}
    return problem if isinstance(problem, dict) else {}
