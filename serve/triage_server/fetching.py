"""Fetches a URL within a total time limit. Imports the standard library.

A socket's timeout applies to each read, so a slow server can hold a reader for ever with a byte now and then.
Here each read gets what is left of the total.
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


def fetch(address: str, timeout_s: float, max_bytes: int) -> bytes:
    """The body at a URL, cut at ``max_bytes``. Proxies from the environment are used.

    Args:
        address: http or https. Redirects are not followed: one could lead from https to anywhere.
        timeout_s: until the body ends, counted from the call. Name resolution has no limit of its own, and
            connecting may take as long again for each address: use ``run_in_daemon_thread`` if all must end
            in time.
        max_bytes: no more is read.

    Raises:
        OSError: it cannot be fetched, or not in time.
        ValueError: not a valid address.
        http.client.HTTPException: the reply is not HTTP.
    """
    deadline = time.monotonic() + timeout_s
    opener = urllib.request.build_opener(
        _NoRedirect, urllib.request.ProxyHandler(), _HttpHandler(deadline), _HttpsHandler(deadline)
    )
    try:
        with opener.open(address, timeout=timeout_s) as response:
            content = bytearray()
            while len(content) < max_bytes and (piece := response.read1(max_bytes - len(content))):
                content += piece
            return bytes(content)
    except urllib.error.HTTPError as error:  # it holds an open connection
        error.close()
        raise


def run_in_daemon_thread(
    work: Callable[[], Result], on_result: Callable[[Result | BaseException], object]
) -> None:
    """Run ``work`` on a daemon thread, which does not delay the end of the process.

    Args:
        work: to run.
        on_result: called on that thread with the result or the exception.
    """

    def run() -> None:
        try:
            found: Result | BaseException = work()
        except BaseException as error:
            found = error
        on_result(found)
        del found  # an exception holds its frames, and so this one

    threading.Thread(target=run, name="triage-fetching", daemon=True).start()


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: object, **__: object) -> None:
        return None


class _DeadlineStream(io.RawIOBase):
    """The bytes of a connection, each read limited to the time that is left."""

    def __init__(self, raw: io.BufferedIOBase, connection: socket.socket, deadline: float) -> None:
        self._raw, self._connection, self._deadline = raw, connection, deadline

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("it did not arrive in time")
        self._connection.settimeout(left)
        return self._raw.readinto1(buffer)

    def close(self) -> None:
        self._raw.close()
        super().close()


class _DeadlineResponse(http.client.HTTPResponse):
    def __init__(self, connection: socket.socket, *arguments: Any, deadline: float, **more: Any) -> None:
        super().__init__(connection, *arguments, **more)
        self.fp = io.BufferedReader(_DeadlineStream(self.fp, connection, deadline))


class _DeadlineHandler(urllib.request.AbstractHTTPHandler):
    """What both handlers share."""

    def __init__(self, deadline: float) -> None:
        super().__init__()
        self._deadline = deadline

    def do_open(self, http_class: Any, req: Any, **more: Any) -> Any:
        return super().do_open(_with_deadline(http_class, self._deadline), req, **more)


class _HttpHandler(_DeadlineHandler, urllib.request.HTTPHandler):
    pass


class _HttpsHandler(_DeadlineHandler, urllib.request.HTTPSHandler):
    pass


def _with_deadline(connection_class: Any, deadline: float) -> Callable[..., Any]:
    def connection(*arguments: Any, **more: Any) -> Any:
        one = connection_class(*arguments, **more)
        one.response_class = functools.partial(_DeadlineResponse, deadline=deadline)
        return one

    return connection
