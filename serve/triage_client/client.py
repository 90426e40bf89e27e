"""The blocking and the asyncio client. Imports httpx and the protocol."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Generator, Sequence
from functools import partial
from types import TracebackType
from typing import Any, Self

import httpx

from lesion_triage.bundle.history import NO_HISTORY, History
from triage_client.arguments import (
    Photograph,
    check_callback,
    check_headers,
    check_server,
    read_photographs,
)
from triage_client.protocol import (
    Action,
    Parsed,
    Reply,
    RetryPolicy,
    Submitted,
    Triaged,
    case_request,
    parse_submitted,
    parse_triaged,
    send_with_retries,
)

_TIMEOUT = httpx.Timeout(150.0, connect=10.0)
"""The read timeout exceeds the server's default limit for an answer, two minutes."""


def _httpx_options(
    url: str | httpx.URL, key: str | None, language: str | None, given: dict[str, Any]
) -> dict[str, Any]:
    """Options for httpx: those ``given``, with what this client sends in every request."""
    check_server(url)
    check_headers(key, language)
    headers = httpx.Headers(given.get("headers"))
    if key:
        headers["Authorization"] = f"Bearer {key}"
    if language:
        headers["Accept-Language"] = language
    return {"timeout": _TIMEOUT, **given, "base_url": url, "headers": headers}


class Client:
    """Blocking client. Threads may share one; close it, or use it in a ``with`` block."""

    def __init__(
        self,
        url: str | httpx.URL,
        key: str | None = None,
        *,
        language: str | None = None,
        retry_policy: RetryPolicy | None = None,
        **httpx_options: Any,
    ) -> None:
        """Configure the client; nothing is sent yet.

        Args:
            url: of the server, such as ``https://triage.example.org``.
            key: API key or token; None if the server asks for none.
            language: of the texts, as in Accept-Language; None: the server's default.
            retry_policy: how often to retry; None: four times.
            httpx_options: for ``httpx.Client``: ``verify``, ``proxy``, ``timeout`` and so on.

        Raises:
            UnansweredError: ``url`` is no server address, or key or language cannot be sent in a header.
        """
        self._http = httpx.Client(**_httpx_options(url, key, language, httpx_options))
        self._retry_policy = retry_policy or RetryPolicy()

    def triage(
        self,
        images: Sequence[Photograph],
        history: History = NO_HISTORY,
        *,
        idempotency_key: str | None = None,
    ) -> Triaged:
        """Score one case.

        Args:
            images: 1 to 16 photographs of one lesion.
            history: what is known beside the photographs; what was not asked stays None.
            idempotency_key: 16 to 64 of A-Z, a-z, 0-9, '.', '_' and '-'; None: a new one. Choose and store
                one if you may send the case again after a crash of your own.

        Raises:
            RefusedError: the server refused the case.
            UnansweredError: the server could not be reached, or its answer could not be read.
        """
        files = read_photographs(images, history)
        request = case_request(self._http, files, history, idempotency_key)
        return self._drive(send_with_retries(request, self._retry_policy, parse_triaged))

    def submit(
        self,
        images: Sequence[Photograph],
        history: History = NO_HISTORY,
        *,
        callback: str,
        idempotency_key: str | None = None,
    ) -> Submitted:
        """Have one case scored, and its answer delivered to a callback that the server's operator configured.

        Args:
            images: 1 to 16 photographs of one lesion.
            history: what is known beside the photographs; what was not asked stays None.
            callback: name of the callback.
            idempotency_key: as for ``triage``; the same case under the same key is one delivery.

        Raises:
            RefusedError: the server refused the case.
            UnansweredError: the server could not be reached, or its answer could not be read.
        """
        check_callback(callback)
        files = read_photographs(images, history)
        request = case_request(self._http, files, history, idempotency_key, callback)
        return self._drive(send_with_retries(request, self._retry_policy, parse_submitted))

    def case(self, case_id: str) -> Submitted:
        """Status of a submitted case, with its answer; errors as for ``submit``.

        Args:
            case_id: from ``submit``.
        """
        request = partial(self._http.build_request, "GET", f"v1/cases/{case_id}")
        return self._drive(send_with_retries(request, self._retry_policy, parse_submitted))

    def wait(self, case_id: str, seconds: float = 60.0, every_s: float = 1.0) -> Submitted:
        """Poll until a submitted case is delivered or given up, or ``seconds`` have passed.

        Args:
            case_id: from ``submit``.
            seconds: to wait at most, beside the last poll.
            every_s: seconds between two polls.

        Returns:
            The last status; ``pending`` if time ran out.

        Raises:
            RefusedError, UnansweredError: as ``case``; the case itself is still on its way.
        """
        until = time.monotonic() + seconds
        while (found := self.case(case_id)).state == "pending" and time.monotonic() < until:
            time.sleep(every_s)
        return found

    def _drive(self, actions: Generator[Action, Reply, Parsed]) -> Parsed:
        action = next(actions)
        while True:
            reply: Reply = None
            if isinstance(action, float):
                time.sleep(action)
            else:
                try:
                    reply = self._http.send(action)
                except Exception as error:  # the caller must learn that the case has no answer
                    reply = error
            try:
                action = actions.send(reply)
            except StopIteration as done:
                result: Parsed = done.value
                return result

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.close()


class AsyncClient:
    """Asyncio client. Tasks of one event loop may share one; use it in an ``async with`` block."""

    def __init__(
        self,
        url: str | httpx.URL,
        key: str | None = None,
        *,
        language: str | None = None,
        retry_policy: RetryPolicy | None = None,
        **httpx_options: Any,
    ) -> None:
        """Configure the client; arguments and errors as for ``Client``."""
        self._http = httpx.AsyncClient(**_httpx_options(url, key, language, httpx_options))
        self._retry_policy = retry_policy or RetryPolicy()

    async def triage(
        self,
        images: Sequence[Photograph],
        history: History = NO_HISTORY,
        *,
        idempotency_key: str | None = None,
    ) -> Triaged:
        """Score one case; arguments and errors as for ``Client.triage``."""
        files = await asyncio.to_thread(read_photographs, images, history)
        request = case_request(self._http, files, history, idempotency_key)
        return await self._drive(send_with_retries(request, self._retry_policy, parse_triaged))

    async def submit(
        self,
        images: Sequence[Photograph],
        history: History = NO_HISTORY,
        *,
        callback: str,
        idempotency_key: str | None = None,
    ) -> Submitted:
        """Have one case scored, and its answer delivered to a callback; as ``Client.submit``."""
        check_callback(callback)
        files = await asyncio.to_thread(read_photographs, images, history)
        request = case_request(self._http, files, history, idempotency_key, callback)
        return await self._drive(send_with_retries(request, self._retry_policy, parse_submitted))

    async def case(self, case_id: str) -> Submitted:
        """Status of a submitted case; as ``Client.case``."""
        request = partial(self._http.build_request, "GET", f"v1/cases/{case_id}")
        return await self._drive(send_with_retries(request, self._retry_policy, parse_submitted))

    async def wait(self, case_id: str, seconds: float = 60.0, every_s: float = 1.0) -> Submitted:
        """Poll a submitted case; as ``Client.wait``."""
        until = time.monotonic() + seconds
        while (found := await self.case(case_id)).state == "pending" and time.monotonic() < until:
            await asyncio.sleep(every_s)
        return found

    async def _drive(self, actions: Generator[Action, Reply, Parsed]) -> Parsed:
        action = next(actions)
        while True:
            reply: Reply = None
            if isinstance(action, float):
                await asyncio.sleep(action)
            else:
                try:
                    reply = await self._http.send(action)
                except Exception as error:  # the caller must learn that the case has no answer
                    reply = error
            try:
                action = actions.send(reply)
            except StopIteration as done:
                result: Parsed = done.value
                return result

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        await self.close()
