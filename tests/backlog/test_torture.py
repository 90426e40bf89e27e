"""``make torture-backlog``: a hundred thousand pictures, two kills, and every row where it belongs."""

from __future__ import annotations

import io
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from PIL import Image

from lesion_triage.data.synthetic import draw_picture

PROGRAM = "import sys; from lesion_triage import cli; sys.exit(cli.main())"
PICTURES, DRAWN = 100_000, 100
"""A file may have 65,000 names, so some are drawn and linked."""


def drawn(root: Path) -> None:
    random_numbers = random.Random(0)
    for number in range(DRAWN):
        kind = "irregular" if number % 3 else "regular"
        buffer = io.BytesIO()
        draw_picture(kind, number).resize((150, 112), Image.Resampling.BICUBIC).save(
            buffer, "JPEG", quality=90
        )
        data = buffer.getvalue()
        (root / f"drawn-{number}.bin").write_bytes(data[:200] if number == 50 else data)  # one is broken
    pictures = root / "pictures"
    for folder in range(100):
        (pictures / f"{folder:02d}").mkdir(parents=True)
    for number in range(PICTURES):
        name = pictures / f"{number % 100:02d}" / f"{number:06d}.jpg"
        name.hardlink_to(root / f"drawn-{random_numbers.randrange(DRAWN)}.bin")


def start(bundle: Path, root: Path, out: Path) -> subprocess.Popen[bytes]:
    words = [str(bundle), "--cases", str(root / "pictures"), "--case-is", "picture", "--out", str(out)]
    return subprocess.Popen([sys.executable, "-c", PROGRAM, "score-batch", *words])


def parts_in(out: Path) -> int:
    return len(list((out / "cases").glob("part-*"))) if (out / "cases").exists() else 0


@pytest.mark.torture
@pytest.mark.timeout(7200)
def test_a_hundred_thousand_rows_survive_two_kills(bundle: Path, tmp_path: Path) -> None:
    drawn(tmp_path)
    undisturbed, killed = tmp_path / "undisturbed", tmp_path / "killed"
    assert start(bundle, tmp_path, undisturbed).wait() == 1  # some pictures are broken
    for parts in (13, 31):
        process = start(bundle, tmp_path, killed)
        while parts_in(killed) < parts:
            assert process.poll() is None
            time.sleep(0.05)
        time.sleep(random.Random(parts).random())
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        print(f"\nkilled with {parts_in(killed)} of {PICTURES // 2000} parts written", flush=True)
    assert start(bundle, tmp_path, killed).wait() == 1
    names = sorted(path.name for path in (undisturbed / "cases").iterdir())
    assert names == sorted(path.name for path in (killed / "cases").iterdir())
    for name in names:
        assert (undisturbed / "cases" / name).read_bytes() == (killed / "cases" / name).read_bytes()
    rows = pq.read_table(killed / "cases")
    assert rows["position"].to_pylist() == list(range(PICTURES))
    assert len(set(rows["case_id"].to_pylist())) == PICTURES
    wrong = set(rows["disposition"].to_pylist()) - {
        "needs_in_person",
        "below_threshold",
        "ungradable",
        "not_scored",
    }
    assert not wrong
    print(f"{rows.num_rows} rows, {len(set(rows['case_id'].to_pylist()))} cases, files equal byte for byte")
