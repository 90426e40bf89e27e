from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from lesion_triage.bundle import pixels
from lesion_triage.bundle.schema import PixelSpec
from lesion_triage.config import Data, Split
from lesion_triage.data import duplicates, manifest, perceptual_hash
from lesion_triage.data.perceptual_hash import Descriptors
from lesion_triage.data.records import Record
from lesion_triage.data.split import SPLITS, split
from lesion_triage.data.synthetic import draw_picture

SPEC = PixelSpec(size_px=perceptual_hash.SIDE_PX)
FOLDER = Data(source="folder")
Turn = Image.Transpose

EXIF_TURNS = {
    1: None,
    2: Turn.FLIP_LEFT_RIGHT,
    3: Turn.ROTATE_180,
    4: Turn.FLIP_TOP_BOTTOM,
    5: Turn.TRANSPOSE,
    6: Turn.ROTATE_270,
    7: Turn.TRANSVERSE,
    8: Turn.ROTATE_90,
}
"""From the TIFF standard, tag 274, by way of Pillow's ``ImageOps.exif_transpose``."""


def encoded(image: Image.Image, quality: int = 92, **words: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality, **words)
    return buffer.getvalue()


def lesion(seed: int) -> Image.Image:
    return draw_picture("irregular" if seed % 2 else "regular", seed)


def cropped(image: Image.Image, share: float) -> Image.Image:
    width, height = image.size
    x, y = round(width * share / 2), round(height * share / 2)
    return image.crop((x, y, width - x, height - y))


COPIES: dict[str, Callable[[Image.Image], bytes]] = {
    "bytes": encoded,
    "remark in the file": lambda image: encoded(image, comment=b"a remark"),
    "quality 70": lambda image: encoded(image, 70),
    "half the size": lambda image: encoded(image.resize((image.width // 2, image.height // 2))),
    "mirrored": lambda image: encoded(image.transpose(Turn.FLIP_LEFT_RIGHT)),
    "turned by 90 degrees": lambda image: encoded(image.transpose(Turn.ROTATE_90)),
    "turned, smaller and saved anew": lambda image: encoded(
        image.transpose(Turn.TRANSVERSE).resize((90, 120)), 70
    ),
    "cut by 2 %": lambda image: encoded(cropped(image, 0.02)),
}


def descriptors_of(files: list[bytes]) -> Descriptors:
    found = perceptual_hash.empty_descriptors(len(files))
    for place, data in enumerate(files):
        found.coefficients[place], found.low_contrast[place] = perceptual_hash.coefficients(
            pixels.decode(data, SPEC).pixels
        )
        found.digests[place] = place
    return found


def dataset(folder: Path, files: dict[str, bytes], rows: list[str], header: str = "") -> Path:
    for name, data in files.items():
        (folder / name).write_bytes(data)
    head = header or "image,needs_in_person,lesion_id"
    (folder / "cases.csv").write_text("\n".join([head, *rows]) + "\n", encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def drawn() -> list[Image.Image]:
    return [lesion(seed) for seed in range(60)]


@pytest.mark.parametrize("how", COPIES)
def test_a_copy_is_found_among_others(how: str, drawn: list[Image.Image]) -> None:
    files = [encoded(image) for image in drawn] + [COPIES[how](image) for image in drawn[:30]]
    found = duplicates.find_duplicates([str(hash(data)) for data in files], descriptors_of(files))
    groups = duplicates.duplicate_groups(found.pairs, len(files))
    assert sorted(groups) == [[place, place + 60] for place in range(30)]


def test_different_drawn_lesions_are_not_joined() -> None:
    files = [encoded(lesion(seed)) for seed in range(150)]
    found = duplicates.find_duplicates([str(place) for place in range(150)], descriptors_of(files))
    assert found.pairs == ()
    assert not found.low_contrast.any()


@pytest.mark.parametrize("orientation", EXIF_TURNS)
def test_the_orientation_is_what_turns_the_first_into_the_second(orientation: int) -> None:
    image = lesion(5).resize((256, 192))
    turn = EXIF_TURNS[orientation]
    files = [encoded(image, 95), encoded(image if turn is None else image.transpose(turn), 90)]
    (pair,) = duplicates.find_duplicates(["a", "b"], descriptors_of(files)).pairs
    assert (pair.kind, pair.orientation) == ("near", orientation)
    assert pair.correlation >= 0.99


def test_a_copy_of_a_copy_is_in_the_same_group(drawn: list[Image.Image]) -> None:
    image = drawn[3]
    files = [encoded(image), encoded(image.transpose(Turn.ROTATE_90)), encoded(image.resize((120, 90)), 70)]
    pairs = duplicates.find_duplicates(["a", "b", "c"], descriptors_of(files)).pairs
    assert len(pairs) == 2
    assert duplicates.duplicate_groups(pairs, 3) == [[0, 1, 2]]


def test_blank_pictures_are_compared_by_bytes_and_pixels_only() -> None:
    blanks = [encoded(Image.new("RGB", (64, 48), (level, level, level))) for level in (0, 1, 128, 255)]
    found = duplicates.find_duplicates(["a", "b", "c", "d"], descriptors_of(blanks))
    assert found.pairs == ()
    assert found.low_contrast.all()


def test_a_crowd_of_copies_is_joined_without_comparing_all_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(duplicates, "MAX_NEIGHBOURS", 50)
    row = descriptors_of([encoded(lesion(1))]).coefficients[0]
    random = np.random.default_rng(0)
    rows = np.clip(row + random.integers(-1, 2, (600, 255)), -127, 127).astype(np.int8)
    descriptors = Descriptors(rows, np.arange(600, dtype=np.uint64), np.zeros(600, bool))
    found = duplicates.find_duplicates([str(place) for place in range(600)], descriptors)
    assert len(duplicates.duplicate_groups(found.pairs, 600)) == 1
    assert found.not_fully_compared


def test_without_pictures_there_is_nothing_to_find() -> None:
    assert duplicates.find_duplicates([], perceptual_hash.empty_descriptors(0)).pairs == ()


def brute_force_pairs(rows: np.ndarray) -> set[tuple[int, int]]:
    """Every pair, every turn, in floats and by np.rot90: knows nothing of the index."""
    grid = np.zeros((len(rows), 256))
    grid[:, 1:] = rows
    grid = grid.reshape(-1, 16, 16)
    sign = (-1.0) ** np.arange(16)
    best = np.full((len(rows), len(rows)), -1.0)
    unit = grid.reshape(len(rows), -1) / np.linalg.norm(grid, axis=(1, 2))[:, None]
    for laid in (grid, grid.transpose(0, 2, 1)):
        for rows_ in (1, sign[:, None]):
            for columns in (1, sign[None]):
                turned = (laid * rows_ * columns).reshape(len(rows), -1)
                best = np.maximum(best, turned / np.linalg.norm(turned, axis=1, keepdims=True) @ unit.T)
    one, other = np.nonzero(np.triu(best >= duplicates.MIN_CORRELATION, 1))
    return set(zip(one.tolist(), other.tolist(), strict=True))


@pytest.mark.parametrize(("noise", "all_of_them"), [(0.0, True), (2.0, True), (5.0, False)])
def test_what_the_index_finds_is_what_looking_at_every_pair_finds(noise: float, all_of_them: bool) -> None:
    random = np.random.default_rng(0)
    slope = np.hypot(*np.mgrid[:16, :16]).ravel()[1:] ** 0.3
    rows = random.normal(0, 40, (400, 255)) / slope
    rows = np.concatenate([rows, rows[:200] + random.normal(0, noise, (200, 255))])
    rows = np.clip(np.rint(rows), -127, 127).astype(np.int8)
    for turn in range(8):
        rows[400 + turn :: 8] = perceptual_hash.apply_symmetry(rows[400 + turn :: 8], turn)
    descriptors = Descriptors(rows, np.arange(600, dtype=np.uint64), np.zeros(600, bool))
    pairs = duplicates.find_duplicates([str(place) for place in range(600)], descriptors).pairs
    found, wanted = {(pair.one, pair.other) for pair in pairs}, brute_force_pairs(rows)
    assert found == wanted if all_of_them else found <= wanted
    assert len(found) >= 0.9 * len(wanted)


def test_lesions_that_share_a_picture_are_one_unit_and_keep_their_cases(tmp_path: Path) -> None:
    image = lesion(1)
    files = {"a.jpg": encoded(image), "b.jpg": encoded(image, 70), "c.jpg": encoded(lesion(2))}
    built = manifest.build(FOLDER, dataset(tmp_path, files, ["a.jpg,1,L2", "b.jpg,1,L1", "c.jpg,0,L3"]))
    assert [record.case_id for record in built.records] == ["L2", "L1", "L3"]
    assert [record.unit_id for record in built.records] == ["L1", "L1", "L3"]
    assert [record.duplicate_group for record in built.records] == ["a.jpg", "a.jpg", ""]
    assert built.findings["copies of one picture stand under two lesions, which count as one unit"] == (
        "a.jpg",
        "b.jpg",
    )
    (copy,) = built.copies
    assert copy[:3] == ("a.jpg", "b.jpg", "near")
    digest = built.write(tmp_path / "run")
    assert manifest.read(tmp_path / "run") == (built, digest)


def test_all_pictures_of_joined_patients_share_the_unit(tmp_path: Path) -> None:
    image = lesion(1)
    files = {
        "a.jpg": encoded(image),
        "b.jpg": encoded(image, 70),
        "c.jpg": encoded(lesion(2)),
        "d.jpg": encoded(lesion(3)),
    }
    rows = ["a.jpg,1,L1,P1", "b.jpg,1,L2,P2", "c.jpg,0,L3,P2", "d.jpg,0,L4,P3"]
    built = manifest.build(
        FOLDER, dataset(tmp_path, files, rows, "image,needs_in_person,lesion_id,patient_id")
    )
    assert [record.unit_id for record in built.records] == ["P1", "P1", "P1", "P3"]
    assert "copies of one picture stand under two patients, who count as one unit" in built.findings


@pytest.mark.parametrize("other", ["0", ""])
def test_the_same_file_under_two_lesions_with_two_labels_goes_up(tmp_path: Path, other: str) -> None:
    data = encoded(lesion(1))
    files = {"a.jpg": data, "b.jpg": data, "c.jpg": encoded(lesion(2)), "d.jpg": encoded(lesion(3))}
    rows = ["a.jpg,1,L1", f"b.jpg,{other},L2", f"c.jpg,{other},L2", "d.jpg,0,L3"]
    built = manifest.build(FOLDER, dataset(tmp_path, files, rows))
    assert [record.needs_in_person for record in built.records] == [True, True, True, False]
    assert built.findings[
        "a copy of the lesion's picture says in person under another lesion, True was taken"
    ] == ("L2",)
    assert built.findings["the same file has two labels"] == ("a.jpg", "b.jpg")


def test_a_look_alike_with_another_label_is_reported_and_changes_no_label(tmp_path: Path) -> None:
    image = lesion(1)
    files = {"a.jpg": encoded(image), "b.jpg": encoded(image, 60)}
    built = manifest.build(FOLDER, dataset(tmp_path, files, ["a.jpg,1,L1", "b.jpg,0,L2"]))
    assert [record.needs_in_person for record in built.records] == [True, False]
    assert built.findings["copies of one picture disagree on needs_in_person, labels were left"] == (
        "a.jpg",
        "b.jpg",
    )


@settings(max_examples=40)
@given(st.data())
def test_copies_never_cross_splits_and_units_neither(data: st.DataObject) -> None:
    count = data.draw(st.integers(2, 50))
    groups = data.draw(st.lists(st.integers(0, 12), min_size=count, max_size=count))
    lesions = data.draw(st.lists(st.integers(0, 25), min_size=count, max_size=count))
    records = [
        Record(
            image_id=f"I{place:03}",
            path="x",
            lesion_id=f"L{lesions[place]}",
            needs_in_person=lesions[place] % 2 == 0,
            source="clinic",
            sha256=str(place),
            width_px=1,
            height_px=1,
        )
        for place in range(count)
    ]
    loose = [
        Record(
            image_id=f"Z{place:03}",
            path="x",
            lesion_id=f"Z{place}",
            needs_in_person=place % 3 == 0,
            source="clinic",
            sha256=f"z{place}",
            width_px=1,
            height_px=1,
        )
        for place in range(40)
    ]
    descriptors = perceptual_hash.empty_descriptors(count + 40)
    descriptors.digests[:count] = np.array(groups, np.uint64)
    descriptors.digests[count:] = np.arange(1000, 1040, dtype=np.uint64)
    settled, copies, findings = manifest.resolve_duplicates([*records, *loose], descriptors)
    made = manifest.Manifest(
        records=settled, source="folder", synthetic=False, copies=copies, findings=findings
    )
    dealt = split(made, "a" * 64, Split())
    homes: dict[tuple[str, str], set[str]] = {}
    by_id = {record.image_id: record for record in settled}
    for place in range(count):
        record = by_id[f"I{place:03}"]
        for tie in (("digest", str(groups[place])), ("lesion", record.lesion_id), ("unit", record.unit_id)):
            homes.setdefault(tie, set()).add(dealt.assignment[record.image_id])
    assert all(len(found) == 1 for found in homes.values())
    assert all(record.needs_in_person is not None for record in settled)
    assert set().union(*homes.values()) <= set(SPLITS)


def test_the_order_of_the_records_does_not_matter(drawn: list[Image.Image]) -> None:
    files = [encoded(image) for image in drawn[:20]] + [encoded(image, 70) for image in drawn[:10]]
    descriptors = descriptors_of(files)
    records = [
        Record(
            image_id=f"{place:02}",
            path="x",
            lesion_id=f"L{place}",
            needs_in_person=place % 2 == 0,
            source="clinic",
            sha256=str(place),
            width_px=1,
            height_px=1,
        )
        for place in range(30)
    ]
    back = np.arange(30)[::-1].astype(np.intp)
    assert manifest.resolve_duplicates(records, descriptors) == manifest.resolve_duplicates(
        records[::-1], descriptors.take(back)
    )


@pytest.mark.data
def test_ham10000_s_known_duplicates_are_found(data_root: Path) -> None:
    """The two equal files that the data's own account names; and one photograph under two lesion ids."""
    built = manifest.build(Data(source="ham10000"), data_root / "ham10000")
    pairs = {(copy.image_id, copy.other_image_id): copy.kind for copy in built.copies}
    assert [pair for pair, kind in pairs.items() if kind == "file"] == [
        ("ISIC_0024366", "ISIC_0029861"),
        ("ISIC_0024777", "ISIC_0029938"),
    ]
    assert pairs["ISIC_0025226", "ISIC_0030074"] == "near"
    assert built.findings["copies of one picture stand under two lesions, which count as one unit"] == (
        "ISIC_0025226",
        "ISIC_0030074",
    )
