"""A real server under hostile pictures and under ten times its load; ``make torture-service``.

python tests/torture_service.py pictures [NUMBER]     # 100,000 mutated and hostile requests
python tests/torture_service.py overload [SECONDS]    # ten times what it can do, for a minute

Both print what they found and end with an error at the first broken promise. The suite runs short ones.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import selectors
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import tiny_bundle
from bench_load import load
from hostile_pictures import decodable, hostile
from triage_server.audit_chain import files_of, verify

HANDS = 16
TIMES = 10
"""The overload over what the server can do."""
MOST_MEGAPIXELS = 50
"""``max_pixels`` of the tiny bundle: what two threads may hold decoded, twice over, bounds the memory."""
_PATIENCE_S = 180.0


@dataclass(frozen=True)
class Served:
    """A server of this run."""

    process: subprocess.Popen[bytes]
    address: tuple[str, int]
    folder: Path
    log: Path

    def memory_mb(self, what: str) -> float:
        """``VmRSS`` or ``VmHWM`` (Linux)."""
        text = Path(f"/proc/{self.process.pid}/status").read_text()
        found = re.search(rf"{what}:\s+(\d+) kB", text)
        assert found
        return int(found[1]) / 1024


@contextmanager
def serving(**variables: str) -> Iterator[Served]:
    """The tiny bundle behind a process of its own, with an audit log; any warning of it is an error."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        bundle, ready, log = tiny_bundle.make(folder / "tiny").folder, folder / "ready", folder / "log"
        command = [
            sys.executable,
            "-W",
            "error",
            "-m",
            "triage_server",
            "--bundle",
            str(bundle),
            "--port",
            "0",
        ]
        told = {"TRIAGE_ALLOW_UNSIGNED": "1", "TRIAGE_AUDIT_LOG": str(folder / "audit"), **variables}
        kept = {name: value for name, value in os.environ.items() if not name.startswith("TRIAGE_")}
        with log.open("wb") as stream:
            process = subprocess.Popen(
                [*command, "--ready-file", str(ready)], stdout=stream, stderr=stream, env=kept | told
            )
        try:
            until = time.monotonic() + _PATIENCE_S
            while not ready.exists():
                assert process.poll() is None, log.read_text()
                assert time.monotonic() < until
                time.sleep(0.02)
            url = urlsplit(ready.read_text().strip())
            assert url.hostname
            assert url.port
            yield Served(process, (url.hostname, url.port), folder, log)
        finally:
            process.kill()
            process.wait()


@dataclass
class Found:
    """What became of many requests."""

    statuses: Counter[str] = field(default_factory=Counter)
    by_kind: Counter[tuple[str, str]] = field(default_factory=Counter)
    broken: list[str] = field(default_factory=list)
    resident_mb: list[float] = field(default_factory=list)


def hostile_pictures(number: int, first: int = 0) -> Found:
    """Send that many hostile requests over kept-alive connections, and look at every answer.

    Raises:
        AssertionError: a 5xx that is not for load, a crash, memory beyond its bound, a scored case whose
            photograph is not whole or another decoder cannot decode, an answer that is none, or a chain that
            does not hold.
    """
    found, numbers, lock = Found(), iter(range(first, first + number)), threading.Lock()
    with serving(TRIAGE_RATE_PER_MINUTE="10000000") as server:
        # Bombs within the limit show first what it holds at most.
        at_rest = server.memory_mb("VmRSS")
        hands = [
            threading.Thread(target=_send_hostile, args=(server, numbers, found, lock)) for _ in range(HANDS)
        ]
        for hand in hands:
            hand.start()
        while any(hand.is_alive() for hand in hands):
            found.resident_mb.append(server.memory_mb("VmRSS"))
            time.sleep(0.25)
        assert server.process.poll() is None, "the server ended"
        most = server.memory_mb("VmHWM")
        server.process.terminate()
        assert server.process.wait(_PATIENCE_S) == 0
        files = files_of(server.folder / "audit")
        lines = [json.loads(line) for file in files for line in file.read_bytes().splitlines()]
        assert verify(server.folder / "audit").torn == 0
        assert "internal error" not in server.log.read_text(), "an internal error stands in the log"
    assert not found.broken, found.broken[:10]
    assert sum(found.statuses.values()) == number
    answers = sum(line["event"] == "answer" for line in lines)
    scored = sum(count for status, count in found.statuses.items() if status.startswith("200"))
    assert answers == scored, f"{scored} answers, {answers} of them in the audit log"
    threads = len(os.sched_getaffinity(0))
    bound = at_rest + 50 + 2 * threads * 3 * MOST_MEGAPIXELS * 1e6 / 2**20
    assert most < bound, f"{most:.0f} MB, expected at most {bound:.0f}"
    half = len(found.resident_mb) // 2
    if number >= 20_000:  # else a single large picture decides
        early, late = sorted(found.resident_mb[half // 2 : half]), sorted(found.resident_mb[-half // 2 :])
        assert late[len(late) // 2] < 1.3 * early[len(early) // 2], "its memory grows"
    print(f"{number} hostile requests: {dict(sorted(found.statuses.items()))}")
    print(
        f"memory: {at_rest:.0f} MB at rest, {most:.0f} at most, {bound:.0f} allowed; "
        f"{len(lines)} lines, the chain holds"
    )
    return found


def _send_hostile(server: Served, numbers: Iterator[int], found: Found, lock: threading.Lock) -> None:
    connection = http.client.HTTPConnection(*server.address, timeout=_PATIENCE_S)
    while True:
        with lock:
            seed = next(numbers, None)
        if seed is None:
            connection.close()
            return
        try:
            status, problem, kind = _send_one(connection, seed)
        except Exception as error:  # told with the seed that shows it again
            connection.close()
            status, problem, kind = "none", f"{type(error).__name__}: {error}", ""
        with lock:
            found.statuses[status] += 1
            found.by_kind[kind, status] += 1
            if problem:
                found.broken.append(f"seed {seed}: {problem}")


def _send_one(connection: http.client.HTTPConnection, seed: int) -> tuple[str, str, str]:
    """Status with disposition or code, what is wrong with it if anything is, and the kind of request."""
    began = time.monotonic()
    sent = hostile(seed)
    if time.monotonic() - began > 1.0:
        connection.close()  # the server lets an idle connection go after some seconds
    connection.request("POST", "/v1/triage", sent.body, sent.headers)
    reply = connection.getresponse()
    text = reply.read()
    said = json.loads(text)
    if reply.status == 200:
        disposition = said["disposition"]
        scored = said["score"] is not None
        problem = ""
        if scored and sent.picture is not None and not decodable(sent.picture):
            problem = f"scored as {disposition}, and another decoder cannot decode it ({sent.kind})"
        if scored and not sent.whole:
            problem = f"scored as {disposition}, and a part of the photograph is missing"
        if not scored and disposition != "ungradable":
            problem = f"{disposition} without a score ({sent.kind})"
        return f"200 {disposition}", problem, sent.kind
    code = said["code"]
    wrong = reply.getheader("content-type") != "application/problem+json"
    expected = 400 <= reply.status < 500 or (reply.status, code) == (503, "busy")
    problem = (
        "" if expected and not wrong and "disposition" not in said else f"{reply.status} {code} ({sent.kind})"
    )
    return f"{reply.status} {code}", problem, sent.kind


@dataclass
class Overloaded:
    """What an open load found: seconds, by outcome."""

    accepted: list[float] = field(default_factory=list)
    refused: list[float] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)


def overload(
    seconds: float, size: tuple[int, int] = (1600, 1200), rounds: int = 40, queue: int = 8
) -> tuple[dict[str, float], Overloaded]:
    """Measure what the server can do with every place taken, then send ten times as much for some seconds.

    Args:
        seconds: of overload.
        size: of the picture, in pixels; a small one costs less than to refuse it.
        rounds: that each place is taken while the capacity is measured.
        queue: places beside the threads.

    Raises:
        AssertionError: a reply that is neither an answer nor a 503 with Retry-After, none refused, a server
            that does not answer afterwards, or a chain that does not hold.
    """
    picture = tiny_bundle.picture_bytes("below", "PNG", size)
    threads = len(os.sched_getaffinity(0))
    with serving(TRIAGE_QUEUE=str(queue), TRIAGE_RATE_PER_MINUTE="10000000") as server:
        host, port = server.address
        address, places = f"{host}:{port}", threads + queue
        load(address, picture, places, places)
        number = rounds * places
        full = load(address, picture, places, number)
        rate = number / full["wall"]
        found = open_load(server.address, picture, TIMES * rate, seconds)
        again = load(address, picture, 1, 5)
        server.process.terminate()
        assert server.process.wait(_PATIENCE_S) == 0
        assert verify(server.folder / "audit").torn == 0
    assert again["p99"] > 0
    assert not found.wrong, found.wrong[:5]
    assert found.refused, "nothing was refused: this was no overload"
    return full | {"rate": rate}, found


def open_load(address: tuple[str, int], picture: bytes, rate: float, seconds: float) -> Overloaded:
    """Requests at a fixed rate, each on a connection of its own, however many were not answered yet."""
    head = f"POST /v1/triage HTTP/1.1\r\nConnection: close\r\nContent-Length: {len(picture)}\r\n"
    request = head.encode() + b"Host: localhost\r\nContent-Type: image/png\r\n\r\n" + picture
    selector, found, began = selectors.DefaultSelector(), Overloaded(), time.perf_counter()
    under_way: dict[socket.socket, tuple[float, bytearray, memoryview]] = {}
    sent = 0
    while sent < rate * seconds or under_way:
        now = time.perf_counter() - began
        while sent < min(now, seconds) * rate:
            connection = socket.socket()
            connection.setblocking(False)
            connection.connect_ex(address)
            under_way[connection] = (began + sent / rate, bytearray(), memoryview(request))
            selector.register(connection, selectors.EVENT_WRITE)
            sent += 1
        assert now < seconds + _PATIENCE_S, f"{len(under_way)} were never answered"
        for ready, events in selector.select(0.001):
            connection = ready.fileobj  # type: ignore[assignment]
            since, heard, rest = under_way[connection]
            ended = False
            try:
                if events & selectors.EVENT_WRITE and rest:
                    rest = rest[connection.send(rest) :]
                    selector.modify(connection, selectors.EVENT_READ | (selectors.EVENT_WRITE if rest else 0))
                if events & selectors.EVENT_READ:
                    piece = connection.recv(65536)
                    heard += piece
                    ended = not piece
            except BlockingIOError:
                pass
            except OSError as error:
                ended = True
                if not heard:
                    heard += f"{type(error).__name__}".encode()
            under_way[connection] = (since, heard, rest)
            if ended or _whole(heard):
                selector.unregister(connection)
                connection.close()
                del under_way[connection]
                _sort(found, bytes(heard), time.perf_counter() - since)
    return found


def _whole(heard: bytearray) -> bool:
    head, end, body = bytes(heard).partition(b"\r\n\r\n")
    length = re.search(rb"content-length: (\d+)", head.lower())
    return bool(end and length and len(body) >= int(length[1]))


def _sort(found: Overloaded, heard: bytes, seconds: float) -> None:
    if heard.startswith(b"HTTP/1.1 200") and b'"disposition"' in heard:
        found.accepted.append(seconds)
    elif heard.startswith(b"HTTP/1.1 503") and b'"busy"' in heard and b"retry-after" in heard.lower():
        found.refused.append(seconds)
    else:
        found.wrong.append(heard[:80].decode("latin-1"))


def percentile(values: list[float], share: float) -> float:
    """Of unsorted values."""
    return sorted(values)[min(len(values) - 1, int(len(values) * share))]


def told(full: dict[str, float], found: Overloaded) -> float:
    """Print what an overload did; the 99th percentile of accepted requests over that at capacity."""
    ratio = percentile(found.accepted, 0.99) / full["p99"]
    print(
        f"capacity {full['rate']:.0f} requests a second with every place taken; {TIMES} times as many sent: "
        f"{len(found.accepted)} answered, {len(found.refused)} refused, none else"
    )
    print(
        f"  accepted, over the same at capacity: median {percentile(found.accepted, 0.5) / full['p50']:.2f}, "
        f"p99 {ratio:.2f}"
    )
    print(
        f"  refused: median {1000 * percentile(found.refused, 0.5):.1f} ms, "
        f"p99 {1000 * percentile(found.refused, 0.99):.0f} ms; over the median at capacity: "
        f"{percentile(found.refused, 0.5) / full['p50']:.3f}, "
        f"{percentile(found.refused, 0.99) / full['p50']:.2f}"
    )
    return ratio


def main() -> None:
    """Hostile pictures, or overload."""
    part, *words = sys.argv[1:]
    if part == "pictures":
        found = hostile_pictures(int(words[0]) if words else 100_000)
        for (kind, status), count in sorted(found.by_kind.items()):
            print(f"  {kind:18} {status:32} {count:6}")
    else:
        told(*overload(float(words[0]) if words else 60.0))


if __name__ == "__main__":
    main()
