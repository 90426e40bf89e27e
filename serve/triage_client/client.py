"""The two clients: one that waits, one that awaits. Imports httpx and the exchange."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Generator, Sequence
from functools import partial
from types import TracebackType
from typing import Any, Self

import httpx

from lesion_triage.bundle.history import NO_HISTORY, History
from triage_client.exchange import (
    Patience,
    Read,
    Reply,
    Step,
    Submitted,
    Triaged,
    case_request,
    exchange,
    submitted,
    triaged,
)
from triage_client.given import Photograph, check_headers, check_server, files_of

_TIMEOUT = httpx.Timeout(150.0, connect=10.0)
"""The server gives a case two minutes."""


class _Settings:
    """What both clients are told."""

    def __init__(
        self,
        url: str | httpx.URL,
        key: str | None,
        language: str | None,
        patience: Patience | None,
        **httpx_options: Any,
    ) -> None:
        check_server(url)
        check_headers(key, language)
        headers = httpx.Headers(httpx_options.pop("headers", None))
        if key:
            headers["Authorization"] = f"Bearer {key}"
        if language:
            headers["Accept-Language"] = language
        self.patience = patience or Patience()
        self.options = {"base_url": url, "headers": headers, "timeout": _TIMEOUT, **httpx_options}


class Client:
    """Asks the server and waits. Threads may share it; close it, or use it in a ``with`` block."""

    def __init__(
        self,
        url: str | httpx.URL,
        key: str | None = None,
        *,
        language: str | None = None,
        patience: Patience | None = None,
        **httpx_options: Any,
    ) -> None:
        """Make ready; nothing is sent yet.

        Args:
            url: of the server, such as ``https://triage.example.org``.
            key: or token; None where the server asks for none.
            language: of the texts, as in Accept-Language; None: the server's own.
            patience: how often to try again; None: four times.
            httpx_options: for ``httpx.Client``: ``verify``, ``proxy``, ``timeout`` and so on.

        Raises:
            UnansweredError: no such address, or a key or language that cannot stand in a header.
        """
        settings = _Settings(url, key, language, patience, **httpx_options)
        self._patience = settings.patience
        self._http = httpx.Client(**settings.options)

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
            history: what is known beside them; what was not asked stays None.
            idempotency_key: 16 to 64 of A-Z, a-z, 0-9, '.', '_' and '-', to be kept by whoever may send the
                case again after a crash of their own; None: a new one.

        Raises:
            RefusedError: the server does not answer this case.
            UnansweredError: it could not be asked, or its answer cannot be read.
        """
        files = files_of(images, history)
        request = case_request(self._http, files, history, idempotency_key)
        return self._walk(exchange(request, self._patience, triaged))

    def submit(
        self,
        images: Sequence[Photograph],
        history: History = NO_HISTORY,
        *,
        callback: str,
        idempotency_key: str | None = None,
    ) -> Submitted:
        """Have one case scored, and its answer brought to a callback that the server's operator named.

        Args:
            images: 1 to 16 photographs of one lesion.
            history: what is known beside them; what was not asked stays None.
            callback: its name.
            idempotency_key: as of ``triage``; the same case under the same key is delivered once.

        Raises:
            RefusedError: the server does not take this case.
            UnansweredError: it could not be asked, or its answer cannot be read.
        """
        files = files_of(images, history)
        request = case_request(self._http, files, history, idempotency_key, callback)
        return self._walk(exchange(request, self._patience, submitted))

    def case(self, case_id: str) -> Submitted:
        """How a submitted case stands, with its answer; errors as of ``submit``."""
        request = partial(self._http.build_request, "GET", f"v1/cases/{case_id}")
        return self._walk(exchange(request, self._patience, submitted))

    def wait(self, case_id: str, seconds: float = 60.0, every_s: float = 1.0) -> Submitted:
        """How a submitted case stands once it was delivered or given up, or when time is up."""
        until = time.monotonic() + seconds
        while (found := self.case(case_id)).state == "pending" and time.monotonic() < until:
            time.sleep(every_s)
        return found

    def _walk(self, steps: Generator[Step, Reply, Read]) -> Read:
        step = next(steps)
        while True:
            reply: Reply = None
            if isinstance(step, float):
                time.sleep(step)
            else:
                try:
                    reply = self._http.send(step)
                except httpx.RequestError as error:
                    reply = error
            try:
                step = steps.send(reply)
            except StopIteration as done:
                found: Read = done.value
                return found

    def close(self) -> None:
        """Let the connections go."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.close()


class AsyncClient:
    """Asks the server and awaits. Tasks of one event loop may share it; use it in an ``async with`` block."""

    def __init__(
        self,
        url: str | httpx.URL,
        key: str | None = None,
        *,
        language: str | None = None,
        patience: Patience | None = None,
        **httpx_options: Any,
    ) -> None:
        """Make ready; arguments and errors as of ``Client``."""
        settings = _Settings(url, key, language, patience, **httpx_options)
        self._patience = settings.patience
        self._http = httpx.AsyncClient(**settings.options)

    async def triage(
        self,
        images: Sequence[Photograph],
        history: History = NO_HISTORY,
        *,
        idempotency_key: str | None = None,
    ) -> Triaged:
        """Score one case; arguments and errors as of ``Client.triage``."""
        files = await asyncio.to_thread(files_of, images, history)
        request = case_request(self._http, files, history, idempotency_key)
        return await self._walk(exchange(request, self._patience, triaged))

    async def submit(
        self,
        images: Sequence[Photograph],
        history: History = NO_HISTORY,
        *,
        callback: str,
        idempotency_key: str | None = None,
    ) -> Submitted:
        """Have one case scored, and its answer brought to a callback; as ``Client.submit``."""
        files = await asyncio.to_thread(files_of, images, history)
        request = case_request(self._http, files, history, idempotency_key, callback)
        return await self._walk(exchange(request, self._patience, submitted))

    async def case(self, case_id: str) -> Submitted:
        """How a submitted case stands; as ``Client.case``."""
        request = partial(self._http.build_request, "GET", f"v1/cases/{case_id}")
        return await self._walk(exchange(request, self._patience, submitted))

    async def wait(self, case_id: str, seconds: float = 60.0, every_s: float = 1.0) -> Submitted:
        """How a submitted case stands in the end; as ``Client.wait``."""
        until = time.monotonic() + seconds
        while (found := await self.case(case_id)).state == "pending" and time.monotonic() < until:
            await asyncio.sleep(every_s)
        return found

    async def _walk(self, steps: Generator[Step, Reply, Read]) -> Read:
        step = next(steps)
        while True:
            reply: Reply = None
            if isinstance(step, float):
                await asyncio.sleep(step)
            else:
                try:
                    reply = await self._http.send(step)
                except httpx.RequestError as error:
                    reply = error
            try:
                step = steps.send(reply)
            except StopIteration as done:
                found: Read = done.value
                return found

    async def close(self) -> None:
        """Let the connections go."""
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        await self.close()
