"""The same graph and photograph behind LitServe, BentoML and ``mlflow models serve``, beside our server.

python tests/bench_peers.py --prepare [--folder DIR]     # their environments, from the package index: minutes
python tests/bench_peers.py [BUNDLE] [--case] [--folder DIR] [--rounds N] [--requests N]

Processor time of all processes of a server is to be trusted, the clock only as a ratio between things that
ran by turns. All servers are up from the beginning and get short turns, since a shared machine changes its
speed by the minute; whose turn it is not, is stopped. Ours has counters, the quality gate and the whole
answer, and asks for a key and writes an audit log unless it is *open*; *bare* is a loop of decode, resize and
network, *floor* the same behind sockets; each peer does what the floor does, for anybody. With ``--case``
each peer gives the same answer as ours, by the same ``Scorer.score``: gate, decision and texts too.
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from importlib.metadata import version
from pathlib import Path

import tiny_bundle
from bench import jpeg
from bench_service import LOAD, Started, floor, looped, server, spread
from triage_server.pool import usable_processors

ROOT = Path(__file__).resolve().parents[1]
APPS = Path(__file__).parent / "peers"
PEERS = ("litserve", "bentoml", "mlflow")
SAME = ("onnxruntime", "numpy", "pillow", "pydantic")
"""Of these each environment gets the version that is here."""
CLIENTS = (1, 8, 32)
_PATIENCE_S = 120


def prepare(folder: Path) -> None:
    """Make an environment for each peer, with the peer's newest version and our ground floor."""
    for peer in PEERS:
        python = folder / peer / "bin" / "python"
        if not python.exists():
            subprocess.run([sys.executable, "-m", "venv", folder / peer], check=True)
        pinned = [f"{name}=={version(name)}" for name in SAME]
        install = [python, "-m", "pip", "install", "--quiet"]
        subprocess.run([*install, peer, "cryptography", "pyyaml", *pinned], check=True)
        subprocess.run([*install, "--no-deps", "--force-reinstall", ROOT], check=True)
        shown = [python, "-c", f"from importlib.metadata import version; print(version({peer!r}))"]
        print(peer, subprocess.run(shown, check=True, capture_output=True, text=True).stdout.strip())


@contextmanager
def peer(name: str, folder: Path, bundle: Path, work: Path, does: str) -> Iterator[Started]:
    """One of the others, ready, with as many workers as processors; ``does`` is "network" or "case"."""
    binaries, port, workers = folder / name / "bin", _free_port(), str(usable_processors())
    environment = os.environ | {
        "PATH": f"{binaries}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{APPS}",
        "BENCH_WORK": does,
        "BENCH_BUNDLE": str(bundle.resolve()),
        "BENCH_PORT": str(port),
        "BENCH_WORKERS": workers,
        "OMP_NUM_THREADS": "1",
        # mlflow's workers take longer to import than uvicorn waits for a sign of life before it kills them.
        "UVICORN_TIMEOUT_WORKER_HEALTHCHECK": "120",
        "BENTOML_DO_NOT_TRACK": "True",
        "BENTOML_HOME": str(work / "bento"),
    }
    if name == "mlflow":
        model = work / "model"
        if not model.exists():
            line = [binaries / "python", APPS / "mlflow_app.py", model]
            subprocess.run(line, check=True, env=environment, capture_output=True)
        command = ["mlflow", "models", "serve", "-m", str(model), "--env-manager", "local"]
        command += ["-h", "127.0.0.1", "-p", str(port), "-w", workers]
    elif name == "bentoml":
        command = ["bentoml", "serve", "bentoml_app:Scoring", "--working-dir", str(APPS)]
        command += ["--host", "127.0.0.1", "--port", str(port)]
    else:
        command = ["python", str(APPS / "litserve_app.py")]
    log = work / f"{name}.log"
    with log.open("wb") as stream:
        process = subprocess.Popen(
            [str(binaries / command[0]), *command[1:]],
            env=environment,
            stdout=stream,
            stderr=stream,
            start_new_session=True,  # ended whole, workers included
        )
    try:
        began = time.perf_counter()
        _until_it_answers(name, port, process, log)
        yield Started(
            process.pid, f"127.0.0.1:{port}", "", time.perf_counter() - began, tree_seconds(process.pid)
        )
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            process.wait(15)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def request_to(name: str, picture: bytes) -> tuple[str, str, bytes]:
    """Path, media type and body as this server wants a photograph."""
    if name == "mlflow":
        text = base64.b64encode(picture).decode()
        return "/invocations", "application/json", json.dumps({"inputs": [text]}).encode()
    return {"litserve": "/predict", "bentoml": "/score"}.get(name, "/v1/triage"), "image/jpeg", picture


def tree_seconds(pid: int) -> float:
    """Processor seconds of a process and all below it (Linux), children that have ended included."""
    below: dict[int, list[int]] = {}
    ticks: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            below.setdefault(int(fields[1]), []).append(int(entry.name))
            ticks[int(entry.name)] = sum(map(int, fields[11:15]))
    found, waiting = 0, [pid]
    while waiting:
        one = waiting.pop()
        found += ticks.get(one, 0)
        waiting += below.get(one, [])
    return found / os.sysconf("SC_CLK_TCK")


def measured(name: str, target: Started, folder: Path, clients: int, requests: int) -> dict[str, float]:
    """What the load found, with ``server``: processor seconds of the target for one request."""
    path, media_type, body = request_to(name, (folder / "picture.jpg").read_bytes())
    sent = folder / f"{name}.body"
    sent.write_bytes(body)

    def send(clients: int, requests: int) -> dict[str, float]:
        words = [target.address, str(sent), str(clients), str(requests), target.key, path, media_type]
        done = subprocess.run([*LOAD, "load", *words], check=True, capture_output=True, text=True)
        found: dict[str, float] = json.loads(done.stdout)
        return found

    send(2, 8)
    before = tree_seconds(target.pid)
    found = send(clients, requests)
    return found | {"server": (tree_seconds(target.pid) - before) / requests}


def compare(bundle: Path, folder: Path, work: Path, does: str, rounds: int, requests: int) -> None:
    """Print one line for each server and number of clients."""
    threads = usable_processors()
    (work / "picture.jpg").write_bytes(jpeg(600, 450))
    starts: dict[str, Callable[[], AbstractContextManager[Started]]] = {
        "floor": lambda: floor(bundle, threads),
        "lesion-triage": lambda: server(bundle, guarded=True),
        "the same, open": lambda: server(bundle, guarded=False),
        **{name: (lambda name=name: peer(name, folder, bundle, work, does)) for name in PEERS},  # type: ignore[misc]
    }
    rows: dict[tuple[int, str], list[dict[str, float]]] = {}
    memory: dict[str, float] = {}
    bare = []
    with ExitStack() as up:
        targets: dict[str, Started] = {}
        for name, start in starts.items():
            targets[name] = up.enter_context(start())
            if name in PEERS:
                os.killpg(targets[name].pid, signal.SIGSTOP)
                up.callback(os.killpg, targets[name].pid, signal.SIGCONT)
        for number in range(rounds):
            bare.append(looped("bare", bundle, work / "picture.jpg", threads, requests)["cpu"])
            for clients in CLIENTS:
                for name, target in sorted(targets.items(), reverse=bool(number % 2)):
                    with _awake(name, target):
                        found = measured(name, target, work, clients, requests)
                        memory[name] = tree_mb(target.pid)
                    found |= {"over": found["server"] / bare[-1], "ratio": found["p99"] / found["p50"]}
                    rows.setdefault((clients, name), []).append(found)
    print(
        f"the others do the {does}; {threads} workers each; {rounds} rounds by turns, {requests} requests; "
        f"the bare loop: {1000 * min(bare):.1f} ms"
    )
    print("clients  server          cpu/bare             rate/floor           p99/p50              MB at end")
    for clients in CLIENTS:
        for name in starts:
            mine, low = rows[clients, name], rows[clients, "floor"]
            rate = [one["wall"] / other["wall"] for one, other in zip(low, mine, strict=True)]
            columns = [
                spread([one["over"] for one in mine]),
                spread(rate),
                spread([one["ratio"] for one in mine]),
            ]
            print(
                f"{clients:7}  {name:14}  "
                + "  ".join(f"{one:19}" for one in columns)
                + f"  {memory[name]:.0f}"
            )


@contextmanager
def _awake(name: str, target: Started) -> Iterator[None]:
    """A peer's turn: some ask again and again whether there is work, also while there is none."""
    if name in PEERS:
        os.killpg(target.pid, signal.SIGCONT)
    yield
    if name in PEERS:
        os.killpg(target.pid, signal.SIGSTOP)


def tree_mb(pid: int) -> float:
    """Proportional memory of a process and all below it, pages that are shared divided among them (Linux)."""
    found, waiting = 0, [pid]
    while waiting:
        one = waiting.pop()
        try:
            text = Path(f"/proc/{one}/smaps_rollup").read_text()
            waiting += map(int, Path(f"/proc/{one}/task/{one}/children").read_text().split())
        except OSError:
            continue
        found += sum(int(line.split()[1]) for line in text.splitlines() if line.startswith("Pss:"))
    return found / 1024


def _until_it_answers(name: str, port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    path, media_type, body = request_to(name, jpeg(320, 240))
    head = f"POST {path} HTTP/1.1\r\nContent-Type: {media_type}\r\nContent-Length: {len(body)}\r\n"
    request = head.encode() + b"Host: localhost\r\nConnection: close\r\n\r\n" + body
    until = time.monotonic() + _PATIENCE_S
    while True:
        assert process.poll() is None, log.read_text(errors="replace")[-3000:]
        assert time.monotonic() < until, log.read_text(errors="replace")[-3000:]
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
                connection.sendall(request)
                if connection.recv(65536).startswith(b"HTTP/1.1 200"):
                    return
        except OSError:
            pass
        time.sleep(0.1)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as one:
        port: int = one.getsockname()[1]
        return port


def main() -> None:
    """Prepare, or compare."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "bundle", nargs="?", type=Path, help="of your own; default: the tiny one of the tests"
    )
    parser.add_argument("--prepare", action="store_true", help="make the environments, and end")
    parser.add_argument("--case", action="store_true", help="the others give the whole answer too")
    parser.add_argument("--folder", type=Path, default=ROOT / ".venv-peers", help="of the environments")
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--requests", type=int, default=64, help="in a turn")
    said = parser.parse_args()
    folder = said.folder.absolute()
    if said.prepare:
        prepare(folder)
        return
    missing = [name for name in PEERS if not (folder / name / "bin" / "python").exists()]
    if missing:
        parser.error(f"{', '.join(missing)}: no environment in {folder}; run with --prepare first")
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        bundle = said.bundle or tiny_bundle.make(work / "tiny").folder
        compare(bundle, folder, work, "case" if said.case else "network", said.rounds, said.requests)


if __name__ == "__main__":
    main()
