"""One attempt to deliver a message to a callback. Imports the callbacks and asyncio; opens no other address.

No redirect is followed, no proxy is used, and nothing of the reply is read beyond its head.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from lesion_triage.bundle.retry_after import requested_pause_s
from triage_server.webhooks.callbacks import Callback, signature

TIMEOUT_S = 15.0
"""For the whole attempt; the specification recommends 15 to 30."""
_MAX_HEAD_BYTES = 16_384


@dataclass(frozen=True, slots=True)
class Reply:
    """A receiver's reply."""

    status: int | None
    """None: no reply in time, or none that is HTTP."""
    retry_after_s: float = 0.0
    fault: str = ""
    """Why there is no status, for the operator; says nothing of the message."""

    @property
    def is_accepted(self) -> bool:
        """Whether the receiver accepted the message: status 2xx."""
        return self.status is not None and 200 <= self.status < 300


async def deliver(callback: Callback, message_id: str, timestamp: int, body: bytes) -> Reply:
    """Send a message, signed with the present time, and wait for the head of the reply."""
    signatures = " ".join(signature(key, message_id, timestamp, body) for key in callback.secrets)
    host = f"[{callback.host}]" if ":" in callback.host else callback.host
    head = (
        f"POST {callback.target} HTTP/1.1\r\nHost: {host}:{callback.port}\r\n"
        f"User-Agent: lesion-triage\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
        f"webhook-id: {message_id}\r\nwebhook-timestamp: {timestamp}\r\nwebhook-signature: {signatures}\r\n"
        "Connection: close\r\n\r\n"
    )
    try:
        async with asyncio.timeout(TIMEOUT_S):
            return await _post(callback, head.encode("ascii") + body)
    except TimeoutError:
        return Reply(None, fault=f"no reply within {TIMEOUT_S:g} s")
    except OSError as error:  # a name that is not found, a refused connection, a certificate
        return Reply(None, fault=str(error) or type(error).__name__)
    except (ValueError, EOFError, asyncio.LimitOverrunError):
        return Reply(None, fault="no reply that is HTTP")


async def _post(callback: Callback, request: bytes) -> Reply:
    reader, writer = await asyncio.open_connection(
        callback.host, callback.port, ssl=callback.tls, limit=_MAX_HEAD_BYTES
    )
    try:
        writer.write(request)
        await writer.drain()
        status = 100
        while 100 <= status < 200:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            version, code, *_ = head.split("\r\n", 1)[0].split(" ", 2)
            if not version.startswith("HTTP/1.") or len(code) != 3 or not code.isdecimal():
                raise ValueError("no status line")
            status = int(code)
        # Once the message is accepted nothing else matters, least of all a fault in the other headers.
        return Reply(status, 0.0 if 200 <= status < 300 else _retry_after_s(head))
    finally:
        writer.transport.abort()


def _retry_after_s(head: str) -> float:
    """Seconds that the receiver asks to wait; 0 if it does not."""
    for line in head.split("\r\n")[1:]:
        name, _, value = line.partition(":")
        if name.strip().lower() == "retry-after":
            return requested_pause_s(value)
    return 0.0
