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
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
from PIL import Image

import tiny_bundle
from lesion_triage.bundle.pixels import decode
from lesion_triage.bundle.schema import PixelSpec
from lesion_triage.bundle.scorer import Scorer


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


def service(bundle: Path, picture: bytes, requests: int) -> float:
    """CPU seconds a request of a real server process, one client, kept-alive connection."""
    with tempfile.TemporaryDirectory() as folder:
        ready = Path(folder) / "ready"
        command = [sys.executable, "-m", "triage_server", "--bundle", str(bundle), "--port", "0"]
        process = subprocess.Popen([*command, "--ready-file", str(ready)], stderr=subprocess.DEVNULL)
        try:
            while not ready.exists():
                time.sleep(0.05)
            client = http.client.HTTPConnection(urlsplit(ready.read_text().strip()).netloc)
            before = 0.0
            for number in range(requests + 20):
                if number == 20:  # the first ones warm up
                    before = cpu_seconds(process.pid)
                client.request("POST", "/v1/triage", picture, {"Content-Type": "image/jpeg"})
                answer = client.getresponse()
                answer.read()
                assert answer.status == 200
            return (cpu_seconds(process.pid) - before) / requests
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
    with tempfile.TemporaryDirectory() as folder:
        bundle = tiny_bundle.make(Path(folder) / "tiny")
        picture, requests = jpeg(600, 450), 300
        scorer = Scorer(bundle)
        scorer.score([picture])
        began = time.process_time()
        for _ in range(requests):
            scorer.score([picture])
        bare = (time.process_time() - began) / requests
        served = service(bundle.folder, picture, requests)
    print(f"service / bare scorer, one client, a graph of no weight (the worst case): {served / bare:.2f}")


if __name__ == "__main__":
    main()
