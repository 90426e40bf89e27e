"""What stands at an address, within a time for all of it. Imports the standard library.

The timeout of a socket is for each piece: one byte now and then keeps a reader for ever. Here each piece has
the time that is left of all.
"""

from __future__ import annotations

import functools
import http.client
import io
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import Any, TypeVar

Result = TypeVar("Result")


def fetched(address: str, within_s: float, most_bytes: int) -> bytes:
    """The body that is served there, cut at ``most_bytes``. Proxies of the environment are asked.

    Args:
        address: of http or https; no redirect is followed, which could lead from https to anywhere.
        within_s: for the head and the body. To find the machine and agree on encryption have as long before
            that: run this with ``begun_aside`` where all of it must end.
        most_bytes: more is not read.

    Raises:
        OSError: it cannot be had, or not in time.
        ValueError: no such address.
        http.client.HTTPException: what answers does not speak HTTP.
    """
    until = time.monotonic() + within_s
    opener = urllib.request.build_opener(
        _NoRedirect, urllib.request.ProxyHandler(), _Plain(until), _Encrypted(until)
    )
    try:
        with opener.open(address, timeout=within_s) as response:
            content = bytearray()
            while len(content) < most_bytes and (piece := response.read1(most_bytes - len(content))):
                content += piece
            return bytes(content)
    except urllib.error.HTTPError as error:  # a connection is open behind it
        error.close()
        raise


def begun_aside(work: Callable[[], Result], tell: Callable[[Result | BaseException], object]) -> None:
    """Do something on a thread that nobody waits for when the process ends.

    Args:
        work: to do.
        tell: gets what came of it, on that thread.
    """

    def run() -> None:
        try:
            found: Result | BaseException = work()
        except BaseException as error:
            found = error
        tell(found)
        del found  # an error holds its frames, and so this one

    threading.Thread(target=run, name="triage-fetching", daemon=True).start()


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: object, **__: object) -> None:
        return None


class _Pieces(io.RawIOBase):
    """The bytes of a connection, each piece in the time that is left."""

    def __init__(self, raw: io.BufferedIOBase, connection: socket.socket, until: float) -> None:
        self._raw, self._connection, self._until = raw, connection, until

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        left = self._until - time.monotonic()
        if left <= 0:
            raise TimeoutError("it did not come in time")
        self._connection.settimeout(left)
        return self._raw.readinto1(buffer)

    def close(self) -> None:
        self._raw.close()
        super().close()


class _Response(http.client.HTTPResponse):
    def __init__(self, connection: socket.socket, *arguments: Any, until: float, **more: Any) -> None:
        super().__init__(connection, *arguments, **more)
        self.fp = io.BufferedReader(_Pieces(self.fp, connection, until))


class _InTime(urllib.request.AbstractHTTPHandler):
    """What both handlers have of ours."""

    def __init__(self, until: float) -> None:
        super().__init__()
        self._until = until

    def do_open(self, http_class: Any, req: Any, **more: Any) -> Any:
        return super().do_open(_hurried(http_class, self._until), req, **more)


class _Plain(_InTime, urllib.request.HTTPHandler):
    pass


class _Encrypted(_InTime, urllib.request.HTTPSHandler):
    pass


def _hurried(made: Any, until: float) -> Callable[..., Any]:
    def connection(*arguments: Any, **more: Any) -> Any:
        one = made(*arguments, **more)
        one.response_class = functools.partial(_Response, until=until)
        return one

    return connection
