"""``make bench``: what it costs to serve. Start, size, memory, and requests over a floor that only scores.

python tests/bench_service.py [BUNDLE] [--install] [--rounds N] [--requests N]

Processor time is to be trusted, the clock only as a ratio between things that ran by turns. The floor
decodes, resizes and runs the network: no quality gate, no policy, no answer. *bare* is a loop of that,
*floor* is the same behind sockets beside the same load, with as many threads as the server; *scorer* is a
loop of all that a bundle says of a case, without a server. Counters cannot be switched off.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from urllib.parse import urlsplit

import tiny_bundle
from bench import alternate, cpu_seconds, full_decode, jpeg
from lesion_triage.bundle.pixels import decode
from lesion_triage.bundle.scorer import Scorer
from lesion_triage.bundle.store import open_bundle
from triage_server.api_keys import new_key
from triage_server.pool import usable_processors

HERE = Path(__file__).parent
LOAD = [sys.executable, str(HERE / "bench_load.py")]


@dataclass(frozen=True)
class Started:
    """A server that is ready."""

    pid: int
    address: str
    key: str
    wall_s: float
    """From its start to the ready file."""
    cpu_s: float


@contextmanager
def server(bundle: Path, *, guarded: bool, threads: int | None = None) -> Iterator[Started]:
    """A real one; ``guarded``: with a key, and an audit log on this machine's temporary folder."""
    with tempfile.TemporaryDirectory() as name:
        ready, keys, key = Path(name) / "ready", Path(name) / "keys", ""
        variables = {"TRIAGE_ALLOW_UNSIGNED": "1", "TRIAGE_RATE_PER_MINUTE": "1000000"}
        if guarded:
            key = new_key(keys, "bench", "score")
            variables |= {"TRIAGE_API_KEYS_FILE": str(keys), "TRIAGE_AUDIT_LOG": str(Path(name) / "audit")}
        if threads is not None:
            variables["TRIAGE_THREADS"] = str(threads)
        command = [sys.executable, "-m", "triage_server", "--bundle", str(bundle), "--port", "0"]
        began = time.perf_counter()
        process = subprocess.Popen(
            [*command, "--ready-file", str(ready)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=os.environ | variables,
        )
        try:
            while not ready.exists():
                assert process.poll() is None, "the server did not start"
                time.sleep(0.005)
            wall = time.perf_counter() - began
            url = urlsplit(ready.read_text().strip())
            yield Started(process.pid, url.netloc, key, wall, cpu_seconds(process.pid))
        finally:
            process.terminate()
            process.wait()


@contextmanager
def floor(bundle: Path, threads: int) -> Iterator[Started]:
    """The floor behind sockets."""
    command = [*LOAD, "floor", str(bundle), str(threads)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield Started(process.pid, f"127.0.0.1:{process.stdout.readline().strip()}", "", 0.0, 0.0)
        finally:
            process.kill()


def loaded(
    target: Started, body: Path, clients: int, requests: int, media_type: str = "image/jpeg"
) -> dict[str, float]:
    """What the load found, with ``server``: processor seconds of the target for one request."""
    words = [target.address, str(body)]
    shown = [target.key, "/v1/triage", media_type]
    warm = [*LOAD, "load", *words, "2", "8", *shown]
    subprocess.run(warm, check=True, stdout=subprocess.DEVNULL)
    before = cpu_seconds(target.pid)
    command = [*LOAD, "load", *words, str(clients), str(requests), *shown]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    spent = cpu_seconds(target.pid) - before
    return json.loads(done.stdout) | {"server": spent / requests}


def looped(what: str, bundle: Path, picture: Path, threads: int, requests: int) -> dict[str, float]:
    """Seconds a picture of a loop without a server."""
    command = [*LOAD, what, str(bundle), str(picture), str(threads), str(requests)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    found: dict[str, float] = json.loads(done.stdout)
    return found


def memory_mb(pid: int, what: str) -> float:
    """``VmRSS`` or ``VmHWM`` of a process (Linux)."""
    text = Path(f"/proc/{pid}/status").read_text()
    return int(re.search(rf"{what}:\s+(\d+) kB", text)[1]) / 1024  # type: ignore[index]


def spread(values: list[float], digits: int = 2) -> str:
    """Median and range."""
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def start_up(bundle: Path, rounds: int) -> None:
    """Print how long a start takes, and on what."""
    found = []
    for _ in range(rounds):
        with server(bundle, guarded=True) as started:
            found.append(started)
    print(f"start to ready, processor seconds: {spread([one.cpu_s for one in found])}")
    print(f"start to ready, seconds by the clock of this machine: {spread([one.wall_s for one in found])}")
    scorer = Scorer.open(bundle)
    began = time.process_time()
    scorer.self_test()
    print(f"  of these the self-test: {time.process_time() - began:.3f} processor seconds")
    command = [sys.executable, "-X", "importtime", "-c", "import triage_server.cli"]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    rows = re.findall(r"import time:\s+(\d+) \|\s+(\d+) \| (\s*)(\S+)", done.stderr)
    total = int(rows[-1][1])
    outer = [
        (int(sum_), name) for _, sum_, depth, name in rows if len(depth) <= 2 and name != "triage_server.cli"
    ]
    shares = ", ".join(f"{name} {sum_ / total:.0%}" for sum_, name in sorted(outer, reverse=True)[:5])
    print(f"  imports by the clock, of {total / 1e6:.2f} s: {shares}")


def installed(folder: Path) -> None:
    """Run the lines of the Dockerfile that install, in a fresh environment, and print its size."""
    text = (HERE.parent / "serve" / "deploy" / "Dockerfile").read_text()
    lines = re.findall(r"^RUN (.*(?:\\\n.*)*)", text.partition("\nFROM ${PYTHON_IMAGE}\n")[0], re.MULTILINE)
    for line in lines:
        here = line.replace("/opt/triage", str(folder)).replace("python -m venv", f"{sys.executable} -m venv")
        subprocess.run(["/bin/sh", "-ec", here], cwd=HERE.parent, check=True, stdout=subprocess.DEVNULL)
    size = sum(path.lstat().st_size for path in folder.rglob("*") if path.is_file())
    packages = len(list(folder.glob("lib/*/site-packages/*.dist-info")))
    print(f"[serve], by the Dockerfile's own lines: {packages} packages, {size / 2**20:.0f} MB")


def large_photographs(bundle: Path) -> None:
    """Print what the coarse decode saves, in a process that holds a network, as the server does.

    Once a network has been let go, the C library keeps the memory that the full decode wants, which then
    costs two thirds.
    """
    scorer = Scorer.open(bundle)
    spec, large = scorer.bundle.header.pixels, jpeg(4000, 3000)
    ratio = alternate(lambda: full_decode(large, spec.size_px), lambda: decode(large, spec), 7)
    print(f"12-megapixel photograph: full-size decode over ours, {ratio} times")


def requests_over_floor(bundle: Path, picture: Path, rounds: int, requests: int) -> None:
    """Print the table. All are up at once and get short turns: a shared machine changes its speed often."""
    threads = usable_processors()
    rows: dict[tuple[int, bool], list[tuple[float, ...]]] = {}
    loads = []
    with ExitStack() as up:
        under = up.enter_context(floor(bundle, threads))
        servers = {guarded: up.enter_context(server(bundle, guarded=guarded)) for guarded in (False, True)}
        for clients, number in product((1, 8, 32), range(rounds)):
            callers = min(threads, clients)
            bare, whole = (
                looped(what, bundle, picture, callers, requests)["cpu"] for what in ("bare", "scorer")
            )
            low = loaded(under, picture, clients, requests)
            for guarded in sorted(servers, reverse=bool(number % 2)):
                here = loaded(servers[guarded], picture, clients, requests)
                loads.append(1000 * here["cpu"] / requests)
                rows.setdefault((clients, guarded), []).append(
                    (
                        here["server"] / bare,
                        here["server"] / whole,
                        low["wall"] / here["wall"],
                        here["p99"] / here["p50"],
                    )
                )
    print(f"\nover a floor of {threads} threads; {rounds} rounds by turns, {requests} requests each:")
    print("clients  key and log  cpu/bare             cpu/scorer           rate/floor           p99/p50")
    for (clients, guarded), found in sorted(rows.items()):
        columns = [spread([row[place] for row in found]) for place in range(4)]
        print(f"{clients:7}  {'yes' if guarded else 'no':11}  " + "  ".join(f"{one:19}" for one in columns))
    print(f"the load itself: {spread(loads)} ms of processor time a request, on the same processors")


def several_photographs(bundle: Path, picture: Path, rounds: int, requests: int) -> None:
    """Print what a case that is alone gains by the other processors: beside a server with one thread."""
    boundary, most = "photograph", usable_processors()
    head = f'--{boundary}\r\nContent-Disposition: form-data; name="image"; filename="x.jpg"\r\n\r\n'
    part = head.encode() + picture.read_bytes() + b"\r\n"
    print(f"\none client, {most} threads over one; {rounds} rounds by turns, {requests} requests each:")
    print("photographs  ms with one thread     median over it       processor time over its")
    with (
        server(bundle, guarded=True, threads=1) as one,
        server(bundle, guarded=True, threads=most) as all_,
        tempfile.TemporaryDirectory() as folder,
    ):
        for count in (1, 2, 4):
            body = Path(folder) / "body"
            body.write_bytes(part * count + f"--{boundary}--\r\n".encode())
            media_type = f"multipart/form-data; boundary={boundary}"
            found = [
                [loaded(each, body, 1, requests, media_type) for each in (one, all_)] for _ in range(rounds)
            ]
            columns = [
                spread([1000 * alone["p50"] for alone, _ in found], 1),
                spread([shared["p50"] / alone["p50"] for alone, shared in found]),
                spread([shared["server"] / alone["server"] for alone, shared in found]),
            ]
            print(f"{count:11}  " + "  ".join(f"{column:19}" for column in columns))


def main() -> None:
    """Print everything."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "bundle", nargs="?", type=Path, help="of your own; default: the tiny one of the tests"
    )
    parser.add_argument("--install", action="store_true", help="install [serve] afresh, and weigh it")
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--requests", type=int, default=64, help="in a turn")
    said = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        bundle = said.bundle or tiny_bundle.make(folder / "tiny").folder
        spec = open_bundle(bundle).header.pixels
        print(f"{os.cpu_count()} processors; pictures of {spec.size_px} px")
        large_photographs(bundle)
        start_up(bundle, 3)
        if said.install:
            installed(folder / "installed")
        picture = folder / "picture.jpg"
        picture.write_bytes(jpeg(600, 450))
        with server(bundle, guarded=True) as target:
            rest = memory_mb(target.pid, "VmRSS")
            loaded(target, picture, 32, 4 * said.requests)
            most = memory_mb(target.pid, "VmHWM")
            print(f"memory: {rest:.0f} MB at rest, {most:.0f} MB at most with 32 clients")
        several_photographs(bundle, picture, said.rounds, said.requests // 4)
        requests_over_floor(bundle, picture, said.rounds, said.requests)


if __name__ == "__main__":
    main()
