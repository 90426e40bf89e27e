"""The two clients: one that waits, one that awaits. Imports httpx and the exchange."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx

from lesion_triage.bundle.history import NO_HISTORY, History
from triage_client.exchange import Patience, Triaged, exchange

Photograph = bytes | Path
"""The file's bytes, or where it lies. Its name is not sent."""
_TIMEOUT = httpx.Timeout(150.0, connect=10.0)
"""The server gives a case two minutes."""


class _Settings:
    """What both clients are told."""

    def __init__(
        self, url: str, key: str | None, language: str | None, patience: Patience | None, **httpx_options: Any
    ) -> None:
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        if language:
            headers["Accept-Language"] = language
        self.patience = patience or Patience()
        self.options = {"base_url": url, "headers": headers, "timeout": _TIMEOUT, **httpx_options}


class Client:
    """Asks the server and waits. Threads may share it; close it, or use it in a ``with`` block."""

    def __init__(
        self,
        url: str,
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
        headers = {"Idempotency-Key": idempotency_key} if idempotency_key else {}
        steps = exchange(self._http, [_bytes(one) for one in images], history, self._patience, headers)
        step = next(steps)
        while True:
            reply: httpx.Response | httpx.TransportError | None = None
            if isinstance(step, float):
                time.sleep(step)
            else:
                try:
                    reply = self._http.send(step)
                except httpx.TransportError as error:
                    reply = error
            try:
                step = steps.send(reply)
            except StopIteration as done:
                triaged: Triaged = done.value
                return triaged

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
        url: str,
        key: str | None = None,
        *,
        language: str | None = None,
        patience: Patience | None = None,
        **httpx_options: Any,
    ) -> None:
        """Make ready; arguments as of ``Client``."""
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
        headers = {"Idempotency-Key": idempotency_key} if idempotency_key else {}
        files = [await asyncio.to_thread(_bytes, one) for one in images]
        steps = exchange(self._http, files, history, self._patience, headers)
        step = next(steps)
        while True:
            reply: httpx.Response | httpx.TransportError | None = None
            if isinstance(step, float):
                await asyncio.sleep(step)
            else:
                try:
                    reply = await self._http.send(step)
                except httpx.TransportError as error:
                    reply = error
            try:
                step = steps.send(reply)
            except StopIteration as done:
                triaged: Triaged = done.value
                return triaged

    async def close(self) -> None:
        """Let the connections go."""
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        await self.close()


def _bytes(photograph: Photograph) -> bytes:
    return photograph.read_bytes() if isinstance(photograph, Path) else photograph
