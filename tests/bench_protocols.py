"""What each way in costs: processor time of a real server for one case over that of the raw body."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import httpx

import tiny_bundle
from bench import cpu_seconds, jpeg
from sent_cases import JSON, WAYS, dicom

ROUNDS, REQUESTS = 7, 30


def requests_for(picture: bytes) -> dict[str, tuple[str, dict[str, Any]]]:
    """Path and body of the same case by each way; a batch has ten of it."""
    jpeg = {"Content-Type": "image/jpeg"}
    case = WAYS["v1"].sent(picture)
    ways: dict[str, tuple[str, dict[str, Any]]] = {
        "raw body": ("/v1/triage", {"content": picture, "headers": jpeg}),
        "form": ("/v1/triage", {"files": {"image": ("x", picture)}}),
        "DICOM": ("/v1/triage", {"content": dicom(picture), "headers": jpeg}),
        "batch of ten, for one": (
            "/v1/triage/batch",
            {"content": json.dumps({"cases": [case] * 10}), "headers": JSON},
        ),
    }
    json_ways = {name: way for name, way in WAYS.items() if name != "batch"}
    return ways | {f"JSON, {name}": (way.path, way.request(picture)) for name, way in json_ways.items()}


def main() -> None:
    """Print one line for each size and way."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        tiny_bundle.make(folder / "tiny")
        ready = folder / "ready"
        command = [sys.executable, "-m", "triage_server", "--bundle", str(folder / "tiny"), "--port", "0"]
        variables = {"TRIAGE_ALLOW_UNSIGNED": "1", "TRIAGE_AUDIT_LOG": str(folder / "audit")}
        process = subprocess.Popen(
            [*command, "--ready-file", str(ready)], stderr=subprocess.DEVNULL, env=os.environ | variables
        )
        try:
            while not ready.exists():
                time.sleep(0.1)
            with httpx.Client(base_url=ready.read_text(encoding="utf-8").strip(), timeout=120) as client:
                for width, height in ((600, 450), (3000, 2000)):
                    measure(client, process.pid, jpeg(width, height), f"{width} x {height}")
        finally:
            process.kill()
            process.wait()


def measure(client: httpx.Client, process: int, picture: bytes, size: str) -> None:
    """Compare the ways on one photograph."""
    ways = requests_for(picture)
    costs: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(ROUNDS):
        for name, (path, request) in ways.items():
            cases = 10 if "batch" in name else 1
            began = cpu_seconds(process)
            for _ in range(max(1, REQUESTS // cases)):
                client.post(path, **request).raise_for_status()
            costs[name].append((cpu_seconds(process) - began) / max(1, REQUESTS // cases) / cases)
    print(f"{size}, {len(picture):,} bytes: processor time for one case over that of the raw body")
    for name in ways:
        ratios = [one / raw for one, raw in zip(costs[name], costs["raw body"], strict=True)]
        print(f"  {name:24} {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})")


if __name__ == "__main__":
    main()
