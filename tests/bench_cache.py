"""``make bench``: what a picture costs in an epoch, by where it comes from; ratios, as seconds depend."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from PIL import Image

from lesion_triage.bundle.document import sha256_of
from lesion_triage.bundle.schema import PixelSpec
from lesion_triage.data import pixel_cache
from lesion_triage.data.records import Record
from lesion_triage.data.synthetic import draw_picture

PICTURES = 600
SPEC = PixelSpec(size_px=160)


def drawn(root: Path) -> list[Record]:
    """JPEG files of 600 x 450 pixels, with grain, as HAM10000 has them."""
    random = np.random.default_rng(0)
    records = []
    for number in range(PICTURES):
        image = draw_picture("irregular", number % 40).resize((600, 450), Image.Resampling.BICUBIC)
        grain = random.normal(0, 4, (450, 600, 3)) + np.asarray(image)
        path = root / f"{number}.jpg"
        Image.fromarray(np.clip(grain, 0, 255).astype(np.uint8)).save(path, quality=90)
        records.append(
            Record(
                image_id=path.name,
                path=path.name,
                lesion_id=path.name,
                needs_in_person=False,
                source="synthetic",
                sha256=sha256_of(path.read_bytes()),
                width_px=600,
                height_px=450,
            )
        )
    return records


def epoch(read: Callable[[int], NDArray[np.uint8]], rounds: int) -> float:
    """CPU milliseconds for each picture in random order; every byte is touched."""
    order = np.random.default_rng(1).permutation(PICTURES).tolist()
    began = time.process_time()
    for _ in range(rounds):
        for place in order:
            np.array(read(place))
    return (time.process_time() - began) / rounds / PICTURES * 1e3


def main() -> None:
    """Print the table."""
    print(
        f"{os.cpu_count()} processors; {PICTURES} JPEG of 600 x 450 to {SPEC.size_px} px, CPU ms a picture\n"
    )
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        records = drawn(root)
        demand = pixel_cache.load_pixels(records, root, SPEC, None)
        decode = epoch(demand.__getitem__, 1)
        began = time.process_time()
        kept = pixel_cache.load_pixels(records, root, SPEC, root / "cache")
        fill = (time.process_time() - began) / PICTURES * 1e3
        plain = epoch(kept.__getitem__, 20)
        began = time.process_time()
        for _ in range(20):
            pixel_cache.load_pixels(records, root, SPEC, root / "cache")
        opening = (time.process_time() - began) / 20 * 1e3

        rows = pa.array([kept[place].tobytes() for place in range(PICTURES)], pa.binary(SPEC.size_px**2 * 3))
        table = pa.table({"pixels": rows})
        with pa.ipc.new_file(root / "cache.arrow", table.schema) as writer:
            writer.write_table(table)
        column = pa.ipc.open_file(pa.memory_map(str(root / "cache.arrow"))).read_all()["pixels"]
        shape = (SPEC.size_px, SPEC.size_px, 3)
        arrow = epoch(lambda place: np.frombuffer(column[place].as_buffer(), np.uint8).reshape(shape), 20)
        np.savez_compressed(root / "packed.npz", *(kept[place] for place in range(100)))
        packed = np.load(root / "packed.npz")
        zipped = epoch(lambda place: packed[f"arr_{place % 100}"], 1)
        size = sum(path.stat().st_size for path in root.glob("*.jpg"))
        print("| source | CPU ms | times as quick as decoding |\n|---|---|---|")
        for name, spent in (
            ("decoded from JPEG in each epoch", decode),
            ("first epoch: decoded, checked and written", fill),
            ("plain .npy, mapped into memory", plain),
            ("Arrow IPC, mapped into memory", arrow),
            ("compressed .npz", zipped),
        ):
            print(f"| {name} | {spent:.3f} | {decode / spent:.1f} |")
        whole = next((root / "cache").glob("*.npy")).stat().st_size
        print(
            f"\nopening a whole cache: {opening:.0f} ms; {whole / size:.2f} times the bytes of the JPEG files"
        )


if __name__ == "__main__":
    main()
