"""What ``bench_service.py`` starts as processes of their own: the load, and the floor below the server.

python tests/bench_load.py load ADDRESS FILE CLIENTS REQUESTS [KEY [PATH [TYPE]]]
python tests/bench_load.py floor BUNDLE THREADS
python tests/bench_load.py bare|scorer BUNDLE PICTURE THREADS REQUESTS
"""

from __future__ import annotations

import json
import queue
import selectors
import socket
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from lesion_triage.bundle.graph import Graph
from lesion_triage.bundle.pixels import decode
from lesion_triage.bundle.scorer import Scorer
from lesion_triage.bundle.store import open_bundle

ANSWER_BYTES = 4096
"""About what the server sends."""


def load(
    address: str,
    picture: bytes,
    clients: int,
    requests: int,
    key: str = "",
    path: str = "/v1/triage",
    media_type: str = "image/jpeg",
) -> dict[str, float]:
    """Send one body, a picture as a rule, again and again over kept-alive connections, one at a time on each.

    Returns:
        Seconds by the clock, seconds of this process's own processor time, and the median and the 99th
        percentile of the seconds that a request took.
    """
    host, _, port = address.rpartition(":")
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {media_type}\r\n"
    head += f"Content-Length: {len(picture)}\r\n"
    request = (head + (f"Authorization: Bearer {key}\r\n" if key else "") + "\r\n").encode() + picture
    selector, took = selectors.DefaultSelector(), []
    sent: dict[socket.socket, float] = {}
    left = requests
    began, spent = time.perf_counter(), time.process_time()
    for _ in range(min(clients, requests)):
        connection = socket.create_connection((host, int(port)))
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        selector.register(connection, selectors.EVENT_READ)
        sent[connection] = time.perf_counter()
        connection.sendall(request)
        left -= 1
    while len(took) < requests:
        for ready, _ in selector.select():
            connection = ready.fileobj  # type: ignore[assignment]
            _whole(connection)
            took.append(time.perf_counter() - sent[connection])
            if left > 0:
                left -= 1
                sent[connection] = time.perf_counter()
                connection.sendall(request)
    wall, spent = time.perf_counter() - began, time.process_time() - spent
    for connection in sent:
        connection.close()
    took.sort()
    return {"wall": wall, "cpu": spent, "p50": took[len(took) // 2], "p99": took[int(len(took) * 0.99)]}


def _whole(connection: socket.socket) -> None:
    data = b""
    while b"\r\n\r\n" not in data:
        data += connection.recv(65536)
    head, _, body = data.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200"), data
    fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:])
    missing = int(fields[b"content-length"]) - len(body)
    while missing > 0:
        missing -= len(connection.recv(missing))


def floor(bundle: Path, threads: int) -> None:
    """Decode, resize and run for whoever sends a picture, and answer with empty bytes, until killed."""
    opened = open_bundle(bundle)
    graph, spec = Graph(opened.graph, opened.header.pixels), opened.header.pixels
    listener = socket.create_server(("127.0.0.1", 0))
    selector = selectors.DefaultSelector()
    selector.register(listener, selectors.EVENT_READ)
    woken, wake = socket.socketpair()
    selector.register(woken, selectors.EVENT_READ)
    ready: queue.SimpleQueue[socket.socket] = queue.SimpleQueue()
    back: queue.SimpleQueue[socket.socket] = queue.SimpleQueue()
    answer = f"HTTP/1.1 200 OK\r\nContent-Length: {ANSWER_BYTES}\r\n\r\n".encode() + bytes(ANSWER_BYTES)

    def work() -> None:
        while True:
            connection = ready.get()
            data = bytearray()
            while b"\r\n\r\n" not in data:
                if not (chunk := connection.recv(65536)):
                    break
                data += chunk
            else:
                head, _, _ = bytes(data[:1024]).partition(b"\r\n\r\n")
                fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:])
                size = len(head) + 4 + int(fields[b"content-length"])
                while len(data) < size:
                    data += connection.recv(262144)
                graph.run(decode(bytes(data[len(head) + 4 :]), spec).pixels)
                connection.sendall(answer)
                back.put(connection)
                wake.send(b"x")

    for _ in range(threads):
        threading.Thread(target=work, daemon=True).start()
    print(listener.getsockname()[1], flush=True)
    while True:
        for found, _ in selector.select():
            if found.fileobj is listener:
                selector.register(listener.accept()[0], selectors.EVENT_READ)
            elif found.fileobj is woken:
                woken.recv(1024)
                while not back.empty():
                    selector.register(back.get(), selectors.EVENT_READ)
            else:
                selector.unregister(found.fileobj)
                ready.put(found.fileobj)  # type: ignore[arg-type]


def looped(once: Callable[[], object], threads: int, requests: int) -> dict[str, float]:
    """Seconds by the clock and of processor time that one call takes, in as many loops as threads."""
    each = requests // threads

    def loop() -> None:
        for _ in range(each):
            once()

    loop()
    loops = [threading.Thread(target=loop) for _ in range(threads)]
    began, spent = time.perf_counter(), time.process_time()
    for one in loops:
        one.start()
    for one in loops:
        one.join()
    return {
        "wall": (time.perf_counter() - began) / (each * threads),
        "cpu": (time.process_time() - spent) / (each * threads),
    }


def main() -> None:
    """One measurement; what it found goes to standard output as JSON."""
    measurement, *words = sys.argv[1:]
    if measurement == "floor":
        floor(Path(words[0]), int(words[1]))
    elif measurement in ("bare", "scorer"):
        opened, picture = open_bundle(Path(words[0])), Path(words[1]).read_bytes()
        scorer, spec = Scorer(opened), opened.header.pixels
        graph = Graph(opened.graph, spec)
        once = {
            "bare": lambda: graph.run(decode(picture, spec).pixels),
            "scorer": lambda: scorer.score([picture]).model_dump_json(),
        }
        print(json.dumps(looped(once[measurement], int(words[2]), int(words[3]))))
    else:
        found = load(words[0], Path(words[1]).read_bytes(), int(words[2]), int(words[3]), *words[4:])
        print(json.dumps(found))


if __name__ == "__main__":
    main()
