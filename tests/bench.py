"""``make bench``: ratios between things measured in the same run; seconds on a shared machine mean little."""

from __future__ import annotations

import http.client
import io
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
from PIL import Image

import tiny_bundle
from lesion_triage.bundle.pixels import decode
from lesion_triage.bundle.schema import PixelSpec
from lesion_triage.bundle.scorer import Scorer
from lesion_triage.bundle.store import open_bundle
from triage_server.api_keys import new_key


def jpeg(width: int, height: int) -> bytes:
    """A gradient with noise and texture: compresses like a photograph, and the quality gate passes it."""
    random = np.random.default_rng(0)
    ramp = np.linspace(60, 190, width)[None, :, None] + np.linspace(-30, 30, height)[:, None, None]
    cell = width // 150
    texture = random.normal(0, 6, (height // cell + 1, width // cell + 1, 1))
    ramp = ramp + texture.repeat(cell, axis=0).repeat(cell, axis=1)[:height, :width]
    levels = np.clip(ramp + random.normal(0, 6, (height, width, 3)), 0, 255).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(levels).save(buffer, "JPEG", quality=88)
    return buffer.getvalue()


def full_decode(data: bytes, size_px: int) -> None:
    """What the pixel path is compared with: every pixel decoded, then the same bicubic resize."""
    Image.open(io.BytesIO(data)).convert("RGB").resize((size_px, size_px), Image.Resampling.BICUBIC)


def alternate(ours: Callable[[], object], theirs: Callable[[], object], rounds: int) -> str:
    """Median and range of the CPU-time ratio ours / theirs over interleaved rounds."""
    ratios = []
    for _ in range(rounds):
        spent = []
        for action in (ours, theirs):
            began = time.process_time()
            action()
            spent.append(time.process_time() - began)
        ratios.append(spent[0] / spent[1])
    return f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"


def service(bundle: Path, picture: bytes, requests: int, clients: int, *, guarded: bool) -> float:
    """CPU seconds a request of a real server process, kept-alive connections.

    Args:
        bundle: unsigned.
        picture: a JPEG.
        requests: to be measured, after twenty to warm up.
        clients: at once.
        guarded: with a key shown and an audit log written; counters are always on.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        ready, keys = folder / "ready", folder / "keys"
        command = [sys.executable, "-m", "triage_server", "--bundle", str(bundle), "--port", "0"]
        variables, headers = {"TRIAGE_ALLOW_UNSIGNED": "1"}, {"Content-Type": "image/jpeg"}
        if guarded:
            headers["Authorization"] = f"Bearer {new_key(keys, 'bench', 'score')}"
            variables |= {"TRIAGE_API_KEYS_FILE": str(keys), "TRIAGE_AUDIT_LOG": str(folder / "audit")}
            variables["TRIAGE_RATE_PER_MINUTE"] = "1000000"
        process = subprocess.Popen(
            [*command, "--ready-file", str(ready)], stderr=subprocess.DEVNULL, env=os.environ | variables
        )

        def send(count: int) -> None:
            client = http.client.HTTPConnection(urlsplit(ready.read_text().strip()).netloc)
            for _ in range(count):
                client.request("POST", "/v1/triage", picture, headers)
                answer = client.getresponse()
                answer.read()
                assert answer.status == 200
            client.close()

        try:
            while not ready.exists():
                time.sleep(0.05)
            send(20)
            before = cpu_seconds(process.pid)
            with ThreadPoolExecutor(clients) as pool:
                list(pool.map(send, [requests // clients] * clients))
            return (cpu_seconds(process.pid) - before) / (requests // clients * clients)
        finally:
            process.terminate()
            process.wait()


def cpu_seconds(pid: int) -> float:
    """User and system time of a process so far (Linux)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def main() -> None:
    """Print the table."""
    print(f"{os.cpu_count()} processors; CPU-time ratios, lower is better for us\n")
    spec = PixelSpec(size_px=160)
    for width, height in ((600, 450), (4000, 3000), (6000, 4000)):
        data = jpeg(width, height)
        ratio = alternate(lambda data=data: decode(data, spec), lambda data=data: full_decode(data, 160), 7)
        print(f"pixel path / full decode, {width}x{height} JPEG ({len(data) // 1024} KB): {ratio}")
    picture, requests = jpeg(600, 450), 200
    with tempfile.TemporaryDirectory() as folder:
        given = sys.argv[1:]  # a bundle of your own in place of the tiny one
        bundle = open_bundle(Path(given[0])) if given else tiny_bundle.make(Path(folder) / "tiny")
        scorer = Scorer(bundle)
        floor = bare(scorer, picture, requests)
        print(f"\nscorer alone: {floor * 1000:.2f} ms CPU a request; the server beside it, same run:")
        for clients in (1, 8):
            for guarded in (False, True):
                ratios = []
                for _ in range(3):
                    floor = bare(scorer, picture, requests)
                    ratios.append(service(bundle.folder, picture, requests, clients, guarded=guarded) / floor)
                what = "key, audit log, counters" if guarded else "counters only"
                found = f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
                print(f"server / scorer alone, {clients} clients, {what}: {found}")


def bare(scorer: Scorer, picture: bytes, requests: int) -> float:
    """CPU seconds of decoding, resizing, session.run and the policy, in a loop."""
    scorer.score([picture])
    began = time.process_time()
    for _ in range(requests):
        scorer.score([picture])
    return (time.process_time() - began) / requests


if __name__ == "__main__":
    main()
