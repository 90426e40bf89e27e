"""Ray for real, on loopback: a cluster of two nodes and one that the program starts itself."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import pytest

import tiny_bundle as tiny
from lesion_triage import cli

CASES = 60
_CLUSTER = """
import json, sys
from ray.cluster_utils import Cluster
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "node_ip_address": "127.0.0.1",
    "include_dashboard": False})
cluster.add_node(num_cpus=2, node_ip_address="127.0.0.1")
print(cluster.address, flush=True)
sys.stdin.read()
cluster.shutdown()
"""


@pytest.fixture(scope="module")
def backlog(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("backlog") / "pictures"
    root.mkdir()
    kinds = ("referred", "below", "black", "unfamiliar")
    for number in range(CASES):
        (root / f"{number:04d}.png").write_bytes(tiny.picture_bytes(kinds[number % 7 % 4]))
    (root / "broken.png").write_bytes(b"")
    return root


@pytest.fixture(scope="module")
def local(bundle, backlog, tmp_path_factory) -> dict[str, bytes]:
    out = tmp_path_factory.mktemp("local") / "out"
    assert cli.main(command(bundle, backlog, out)) == 1
    return parts_of(out)


def command(bundle, backlog, out, *options):
    words = [str(bundle), "--cases", str(backlog), "--case-is", "picture", "--out", str(out)]
    return ["score-batch", *words, "--part-cases", "7", *options]


def parts_of(out):
    return {path.name: path.read_bytes() for path in sorted((out / "cases").iterdir())}


def listening(pid: int) -> set[str]:
    """Addresses on which a process listens, IPv4."""
    inodes = {
        link.readlink().name.removeprefix("socket:[").removesuffix("]")
        for link in Path(f"/proc/{pid}/fd").iterdir()
        if "socket" in str(link.readlink())
    }
    found = set()
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        cells = line.split()
        if cells[3] == "0A" and cells[9] in inodes:
            found.add(socket.inet_ntoa(bytes.fromhex(cells[1].partition(":")[0])[::-1]))
    return found
