"""``make bench``: a made-up manifest of 400,000 records, from records to proven splits; growth is the proof.

With ``--pictures DIR`` it measures instead, on HAM10000 in DIR, which copies are found at which correlation.
"""

from __future__ import annotations

import argparse
import io
import os
import resource
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lesion_triage.bundle import pixels
from lesion_triage.bundle.document import sha256_of
from lesion_triage.bundle.schema import PixelSpec
from lesion_triage.config import Data, Split
from lesion_triage.data import duplicates, manifest, perceptual_hash, split
from lesion_triage.data.manifest import Manifest
from lesion_triage.data.perceptual_hash import SYMMETRIES, Descriptors
from lesion_triage.data.records import Record

COPIES = 0.05
"""Share of the records that are a copy of another: bytes, or saved anew, or turned."""
SIZES = (10_000, 40_000, 160_000, 400_000)
SOURCES = ("isic_2018", "isic_2019", "isic_2020", "clinic")


def rows(count: int, random: np.random.Generator) -> NDArray[np.int8]:
    """Looks as skin has them: a spot near the middle, a dark rim now and then, texture of all sizes."""
    place = np.linspace(-1, 1, 16, dtype=np.float32)
    x, y = place[None, None, :], place[None, :, None]
    dct = perceptual_hash._DCT
    frequency = np.hypot(*np.mgrid[:16, :16]).astype(np.float32)
    frequency[0, 0] = np.inf
    found = np.empty((count, 255), np.int8)
    for start in range(0, count, 20_000):
        some = min(20_000, count - start)

        def drawn(low: float, high: float, size: int = some) -> NDArray[np.float32]:
            return random.uniform(low, high, (size, 1, 1)).astype(np.float32)

        across, along = x - random.normal(0, 0.12, (some, 1, 1)), y - random.normal(0, 0.12, (some, 1, 1))
        distance = np.hypot(across / drawn(0.2, 0.7), along / drawn(0.2, 0.7))
        thumb = -drawn(20, 90) / (1 + np.exp(8 * (distance - 1)))
        thumb -= (drawn(0, 1) < 0.15) * 80 / (1 + np.exp(-15 * (np.hypot(x, y) - drawn(1.0, 1.2))))
        thumb += drawn(-10, 10) * x + drawn(-10, 10) * y
        shape = dct @ thumb.astype(np.float32) @ dct.T
        shape += random.standard_normal(shape.shape, np.float32) * drawn(20, 90) / frequency
        weighted = (shape * np.hypot(*np.mgrid[:16, :16])).reshape(some, -1)[:, 1:]
        found[start : start + some] = np.rint(weighted * (127 / np.abs(weighted).max(1, keepdims=True)))
    return found


def generate_records(count: int) -> tuple[list[Record], Descriptors, list[tuple[int, int]]]:
    """Records with no file, what they look like, and which were planted as copies of which."""
    random = np.random.default_rng(0)
    looks = rows(count, random)
    planted = np.sort(random.choice(count // 2, int(COPIES * count), replace=False)) + count // 2
    originals = random.choice(count // 2, len(planted), replace=False)
    by_bytes = random.random(len(planted)) < 0.4
    for turn in range(SYMMETRIES):
        some = np.arange(len(planted)) % SYMMETRIES == turn
        turned = perceptual_hash.apply_symmetry(looks[originals[some]], turn) + random.normal(
            0, 1, (some.sum(), 255)
        )
        looks[planted[some]] = np.clip(np.rint(turned), -127, 127).astype(np.int8)
    looks[planted[by_bytes]] = looks[originals[by_bytes]]
    names = np.arange(count)
    names[planted[by_bytes]] = originals[by_bytes]
    lesions = random.integers(0, int(count * 0.7), count).tolist()
    records = [
        Record(
            image_id=f"ISIC_{number:07}",
            path=f"images/ISIC_{number:07}.jpg",
            lesion_id=f"IL_{lesions[number]:07}",
            patient_id=f"IP_{lesions[number] // 3:07}",
            diagnosis=("nv", "mel", "bcc", "bkl")[lesions[number] % 4],
            needs_in_person=None if number % 50 == 0 else lesions[number] % 4 in (1, 2),
            source=SOURCES[lesions[number] % 4],
            sha256=sha256_of(str(name).encode()),
            width_px=600,
            height_px=450,
        )
        for number, name in enumerate(names.tolist())
    ]
    descriptors = Descriptors(looks, np.arange(count, dtype=np.uint64) + 1, np.zeros(count, bool))
    descriptors.digests[planted[by_bytes]] = descriptors.digests[originals[by_bytes]]
    return records, descriptors, list(zip(originals.tolist(), planted.tolist(), strict=True))


def measure_once(count: int) -> dict[str, float]:
    """CPU seconds of each step."""
    records, descriptors, planted = generate_records(count)
    spent: dict[str, float] = {}

    def timed(name: str, work: Callable[[], object]) -> object:
        began = time.process_time()
        result = work()
        spent[name] = time.process_time() - began
        return result

    settled, copies, findings = timed(
        "deduplicate", lambda: manifest.resolve_duplicates(records, descriptors)
    )  # type: ignore[misc]
    made = Manifest(records=settled, source="isic", synthetic=False, findings=findings, copies=copies)
    with tempfile.TemporaryDirectory() as folder:
        timed("write", lambda: made.write(Path(folder)))
        made, digest = timed("read", lambda: manifest.read(Path(folder)))  # type: ignore[misc]
    dealt = timed("split", lambda: split.split(made, digest, Split()))
    timed("prove", lambda: split.check_disjoint(made, dealt))  # type: ignore[arg-type]
    group = [record.duplicate_group for record in made.records]
    found = sum(bool(group[one]) and group[one] == group[other] for one, other in planted)
    false = len({name for name in group if name}) - len(planted)
    print(f"  {found:,} of {len(planted):,} planted copies found, {false:+,} groups beyond them")
    return spent


def scale() -> None:
    """Print seconds by step for every size, and the growth from one to the next."""
    print(f"{os.cpu_count()} processors; CPU seconds, one process")
    before: tuple[int, float] | None = None
    for count in SIZES:
        spent = measure_once(count)
        total = sum(spent.values())
        steps = ", ".join(f"{name} {seconds:.1f}" for name, seconds in spent.items())
        growth = ""
        if before:
            doublings = np.log2(count / before[0])
            growth = f"; {2 ** (np.log2(total / before[1]) / doublings):.2f} times for each doubling"
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2
        print(f"{count:>9,} records: {total:.1f} s ({steps}){growth}; peak memory {peak:.2f} GB")
        before = count, total


def copies_of(data: bytes) -> Iterator[tuple[str, bytes]]:
    """The ways a picture comes back in another collection."""
    image = Image.open(io.BytesIO(data)).convert("RGB")
    width, height = image.size
    half = image.resize((width // 2, height // 2), Image.Resampling.LANCZOS)
    grey = np.asarray(image, np.float32).mean((0, 1))
    balanced = Image.fromarray(np.clip(np.asarray(image) * (grey.mean() / grey), 0, 255).astype(np.uint8))

    def cut(share: float) -> Image.Image:
        x, y = max(1, round(share * width)), max(1, round(share * height))
        return image.crop((x, y, width - x, height - y))

    for name, changed, quality in (
        ("saved anew, quality 70", image, 70),
        ("saved anew, quality 40", image, 40),
        ("half the size", half, 90),
        ("mirrored", image.transpose(Image.Transpose.FLIP_LEFT_RIGHT), 90),
        ("turned by 90 degrees", image.transpose(Image.Transpose.ROTATE_90), 90),
        ("turned over, half the size, quality 70", half.transpose(Image.Transpose.TRANSVERSE), 70),
        ("15 % brighter", image.point(lambda level: min(255, int(level * 1.15))), 90),
        ("colours balanced", balanced, 90),
        ("1 % cut from each side", cut(0.01), 90),
        ("2 % cut from each side", cut(0.02), 90),
        ("5 % cut from each side", cut(0.05), 90),
    ):
        buffer = io.BytesIO()
        changed.save(buffer, "JPEG", quality=quality)
        yield name, buffer.getvalue()


def measure_on_pictures(root: Path, sample: int) -> None:
    """Print what of each kind of copy is found by which correlation, and what else is."""
    known = manifest.build(Data(source="ham10000"), root)
    spec = PixelSpec(size_px=perceptual_hash.SIDE_PX)

    def descriptor_of(data: bytes) -> NDArray[np.int8]:
        return perceptual_hash.coefficients(pixels.decode(data, spec).pixels)[0]

    looks = np.stack([descriptor_of((root / record.path).read_bytes()) for record in known.records])
    chosen = np.random.default_rng(0).choice(len(looks), sample, replace=False)
    made: dict[str, list[NDArray[np.int8]]] = {}
    for place in chosen.tolist():
        for name, data in copies_of((root / known.records[place].path).read_bytes()):
            made.setdefault(name, []).append(descriptor_of(data))
    levels = (0.93, 0.94, 0.95, 0.96, 0.97, 0.98)
    print(f"{len(looks):,} pictures, {sample:,} of them copied\n")
    print(
        "| copy | correlation: lowest | 1 % | " + " | ".join(f">= {level}" for level in levels) + " | found |"
    )
    print("|---|" + "---|" * (len(levels) + 3))
    for name, copied in made.items():
        rows_, originals = np.stack(copied), looks[chosen]
        norms = tuple(np.linalg.norm(part.astype(np.float32), axis=1) for part in (rows_, originals))
        best = np.max(
            [perceptual_hash.correlation(rows_, originals, turn, norms) for turn in range(SYMMETRIES)], axis=0
        )
        both = np.concatenate([looks, rows_])
        found = duplicates.find_duplicates(
            [str(number) for number in range(len(both))],
            Descriptors(both, np.arange(len(both), dtype=np.uint64), np.zeros(len(both), bool)),
        )
        home = {
            place: number
            for number, group in enumerate(duplicates.duplicate_groups(found.pairs, len(both)))
            for place in group
        }
        hits = [home.get(len(looks) + n, -1) == home.get(int(place), -2) for n, place in enumerate(chosen)]
        shares = " | ".join(f"{np.mean(best >= level):.3f}" for level in levels)
        print(
            f"| {name} | {best.min():.3f} | {np.quantile(best, 0.01):.3f} | {shares} | {np.mean(hits):.4f} |"
        )
    count_alike_pairs(looks, [record.lesion_id for record in known.records], levels)


def count_alike_pairs(looks: NDArray[np.int8], lesions: list[str], levels: tuple[float, ...]) -> None:
    """How many pairs of pictures of different lesions reach each correlation, by looking at every pair."""
    unit = looks / np.linalg.norm(looks.astype(np.float32), axis=1, keepdims=True)
    lesion = np.unique(lesions, return_inverse=True)[1]
    asked = (0.90, 0.91, 0.92, *levels)
    counts = np.zeros(len(asked), int)
    for start in range(0, len(unit), 500):
        block = slice(start, start + 500)
        best = np.max(
            [perceptual_hash.apply_symmetry(unit[block], turn) @ unit.T for turn in range(SYMMETRIES)], axis=0
        )
        apart = lesion[block][:, None] < lesion[None]
        counts += [int(np.count_nonzero(best[apart] >= level)) for level in asked]
    told = ", ".join(f">= {level}: {count}" for level, count in zip(asked, counts.tolist(), strict=True))
    print(f"\npairs of different lesions, of {len(looks) * (len(looks) - 1) // 2:,} pairs: {told}")


def main() -> None:
    """Print one of the two tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pictures", type=Path, metavar="DIR", help="folder of HAM10000")
    parser.add_argument("--sample", type=int, default=1_500, help="pictures to copy (%(default)s)")
    arguments = parser.parse_args()
    if arguments.pictures:
        measure_on_pictures(arguments.pictures, arguments.sample)
    else:
        scale()


if __name__ == "__main__":
    main()
