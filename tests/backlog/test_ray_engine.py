"""Ray for real, on loopback: a cluster of two nodes and one that the program starts itself."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import tiny_bundle as tiny
from lesion_triage import cli

KINDS: tuple[tiny.Kind, ...] = ("referred", "below", "black", "unfamiliar")
pytestmark = pytest.mark.slow  # Ray starts and ends clusters

PROGRAM = "import sys; from lesion_triage import cli; sys.exit(cli.main())"
CASES = 60
LOOPBACK = {"0100007F", "0000000000000000FFFF00000100007F", "00000000000000000000000001000000"}
"""127.0.0.1, the same in IPv6, and ::1."""
_TWO_NODES = """
import sys
from ray.cluster_utils import Cluster
place = {"num_cpus": 2, "node_ip_address": "127.0.0.2", "include_dashboard": False}
for attempt in range(3):  # Ray gives a node thirty seconds to start, which a busy machine may need
    try:
        cluster = Cluster(initialize_head=True, head_node_args=place)
        cluster.add_node(num_cpus=2, node_ip_address="127.0.0.3")
        break
    except Exception as error:
        print(error, file=sys.stderr, flush=True)
print(cluster.address, flush=True)
sys.stdin.read()
cluster.shutdown()
"""
_COUNT = """
import ray
ray.init(_node_ip_address="127.0.0.2")
print(len(ray.nodes()))
"""


@pytest.fixture(scope="module")
def backlog(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("backlog") / "pictures"
    root.mkdir()
    for number in range(CASES):
        (root / f"{number:04d}.png").write_bytes(tiny.picture_bytes(KINDS[number % 7 % 4]))
    (root / "broken.png").write_bytes(b"")
    return root


@pytest.fixture(scope="module")
def local(bundle: Path, backlog: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What the other engine makes of the same backlog."""
    out = tmp_path_factory.mktemp("local") / "out"
    assert cli.main(command(bundle, backlog, out)) == 1
    return parts_of(out)


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """Of a cluster of two nodes on loopback, where Ray takes 127.0.0.1 alone for its public address."""
    variables = {**os.environ, "RAY_USAGE_STATS_ENABLED": "0"}
    process = subprocess.Popen(
        [sys.executable, "-c", _TWO_NODES],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=variables,
    )
    assert process.stdout is not None
    found = ""
    while not found.startswith("127.0.0.2:"):  # Ray prints advice first
        line = process.stdout.readline()
        assert line, "the cluster did not start"
        found = line.strip()
    yield found
    process.communicate(timeout=60)


def command(bundle: Path, backlog: Path, out: Path, *options: str) -> list[str]:
    words = [str(bundle), "--cases", str(backlog), "--case-is", "picture", "--out", str(out)]
    return ["score-batch", *words, "--part-cases", "7", *options]


def parts_of(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((out / "cases").iterdir())}


def run(words: list[str]) -> subprocess.CompletedProcess[str]:
    """The program in a process of its own, as Ray is when a user calls it."""
    return subprocess.run(
        [sys.executable, "-c", PROGRAM, *words], check=False, capture_output=True, text=True
    )


def descendants(pid: int) -> set[int]:
    found = {pid}
    for tasks in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            for child in tasks.read_text().split():
                found |= descendants(int(child))
    return found


def listening(pid: int) -> set[str]:
    """Addresses on which a process and what it started wait for others, as the kernel writes them."""
    sockets = set()
    for one in descendants(pid):
        for handle in Path(f"/proc/{one}/fd").glob("*"):
            with contextlib.suppress(OSError):  # gone in the meantime
                sockets.add(str(handle.readlink()))
    found = set()
    for table in ("tcp", "tcp6"):
        for line in Path("/proc/net", table).read_text().splitlines()[1:]:
            cells = line.split()
            if cells[3] == "0A" and f"socket:[{cells[9]}]" in sockets:
                found.add(cells[1].partition(":")[0])
    return found


def test_two_nodes_write_the_same_files_as_one_process(bundle, backlog, local, address, tmp_path):
    nodes = subprocess.run(
        [sys.executable, "-c", _COUNT],
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, "RAY_ADDRESS": address},
    )
    assert nodes.stdout.splitlines()[-1] == "2"
    done = run(command(bundle, backlog, tmp_path / "out", "--engine", "ray", "--address", address))
    assert done.returncode == 1, done.stderr  # one picture is broken
    assert parts_of(tmp_path / "out") == local


def test_a_worker_that_cannot_go_on_says_why_in_one_sentence(bundle, tmp_path, address):
    cases = tmp_path / "cases.csv"
    cases.write_text("case_id,image\na,gone.png\n")
    words = [str(bundle), "--cases", str(cases), "--out", str(tmp_path / "out"), "--address", address]
    done = run(["score-batch", *words, "--engine", "ray"])
    assert done.returncode == 2
    assert "BacklogError: a worker of the cluster: none of 1 consecutive cases" in done.stderr


def test_without_an_address_a_cluster_starts_here_and_ends_what_threads_began(
    bundle, backlog, local, tmp_path
):
    out = tmp_path / "out"
    words = command(bundle, backlog, out)
    assert cli.main(words) == 1
    for part in list((out / "cases").iterdir())[::2]:
        part.unlink()
    words = [sys.executable, "-c", PROGRAM, *words, "--engine", "ray"]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    heard: set[str] = set()
    while process.poll() is None:
        heard |= listening(process.pid)
        time.sleep(0.2)
    assert process.communicate()[0].count("cases are already done") == 1
    assert process.returncode == 1  # one picture is broken
    assert parts_of(out) == local
    assert heard
    assert heard <= LOOPBACK, "Ray would answer to other machines"


def test_a_cluster_that_is_not_there_is_one_sentence(bundle, backlog, tmp_path):
    words = command(bundle, backlog, tmp_path / "out", "--engine", "ray", "--address", "127.0.0.1:1")
    done = run(words)
    assert done.returncode == 2
    assert "BacklogError: Ray 127.0.0.1:1: no usable cluster" in done.stderr
