from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from lesion_triage.bundle.document import sha256_of
from lesion_triage.bundle.schema import PixelSpec
from lesion_triage.config import Data
from lesion_triage.data import manifest as manifests
from lesion_triage.data.manifest import Manifest
from lesion_triage.data.records import COLUMNS, Record
from lesion_triage.errors import DataError, ManifestError

Dataset = Callable[..., Path]
FOLDER = Data(source="folder")


def rows(count: int, **every: str) -> list[dict[str, str]]:
    return [
        {"image": f"{number:02}.jpg", "needs_in_person": str(number % 2), "lesion_id": f"L{number}", **every}
        for number in range(count)
    ]


def test_what_is_written_is_what_is_read(dataset: Dataset, tmp_path: Path) -> None:
    cells = rows(4, image_type='a "quoted", word', age_approx="7.5", patient_id="", diagnosis="naïve\nline")
    built = manifests.build(FOLDER, dataset(cells))
    digest = built.write(tmp_path / "run")
    assert manifests.read(tmp_path / "run") == (built, digest)
    assert digest == sha256_of((tmp_path / "run" / "manifest.csv").read_bytes())


def test_equal_data_gives_equal_bytes_whatever_the_order_of_rows(dataset: Dataset, tmp_path: Path) -> None:
    root = dataset(rows(6))
    manifests.build(FOLDER, root).write(tmp_path / "one")
    dataset(rows(6)[::-1])
    manifests.build(FOLDER, root).write(tmp_path / "two")
    for name in ("manifest.csv", "manifest.json"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_size_and_hash_are_the_file_s_own(dataset: Dataset) -> None:
    root = dataset(rows(2))
    record = manifests.build(FOLDER, root).records[0]
    data = (root / record.path).read_bytes()
    assert (record.sha256, record.width_px, record.height_px) == (sha256_of(data), 24, 16)
    assert manifests.read_picture(root, record) == data


def test_progress_ends_at_the_total(dataset: Dataset) -> None:
    seen: list[tuple[int, int]] = []
    manifests.build(FOLDER, dataset(rows(5)), lambda done, total: seen.append((done, total)))
    assert seen == [(number, 5) for number in range(1, 6)]


def rewritten(change: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        path.write_bytes(change(path.read_bytes()))

    return damage


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (Path.unlink, "image_missing"),
        (rewritten(lambda _: b""), "image_empty"),
        (rewritten(lambda _: b"GET / HTTP/1.1"), "image_format_not_supported"),
        (rewritten(lambda data: data[: len(data) // 2]), "image_not_decodable"),
        (lambda path: Image.new("L", (2000, 1000)).save(path), "image_too_large"),
    ],
)
def test_a_picture_that_cannot_be_used_is_dropped_and_named(
    dataset: Dataset, tmp_path: Path, damage: Callable[[Path], None], reason: str
) -> None:
    root = dataset(rows(12))
    damage(root / "03.jpg")
    built = manifests.build(FOLDER, root, pixels=PixelSpec(size_px=64, max_pixels=1_000_000))
    assert built.dropped == {reason: ("03.jpg",)}
    assert len(built.records) == 11
    built.write(tmp_path / "run")
    header = json.loads((tmp_path / "run" / "manifest.json").read_text(encoding="utf-8"))
    assert header["dropped"] == {reason: ["03.jpg"]}


def test_too_many_lost_pictures_mean_the_wrong_folder(dataset: Dataset) -> None:
    root = dataset(rows(20), without=["00.jpg", "01.jpg", "02.jpg"])
    with pytest.raises(ManifestError, match=r"3 of the 20 pictures .*image_missing: 3.*Check --data-root "):
        manifests.build(FOLDER, root)


@pytest.mark.parametrize("there", ["00.JPG", "00.Jpg"])
def test_a_name_with_other_capital_letters_on_the_disk_is_said(dataset: Dataset, there: str) -> None:
    root = dataset(rows(4))
    (root / "00.jpg").rename(root / there)
    with pytest.raises(ManifestError, match=r"cases\.csv, line 2 \(a file there differs .*capital letters"):
        manifests.build(FOLDER, root)


def test_a_tenth_may_be_lost(dataset: Dataset) -> None:
    root = dataset(rows(20), without=["00.jpg", "01.jpg"])
    assert manifests.build(FOLDER, root).dropped == {"image_missing": ("00.jpg", "01.jpg")}


def test_an_empty_table_is_refused(tmp_path: Path) -> None:
    (tmp_path / "cases.csv").write_text("image,needs_in_person\n", encoding="utf-8")
    with pytest.raises(ManifestError, match="names none"):
        manifests.build(FOLDER, tmp_path)


def test_a_missing_root_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="--data-root"):
        manifests.build(FOLDER, tmp_path / "nowhere")


def test_a_picture_named_twice_is_refused(dataset: Dataset) -> None:
    with pytest.raises(DataError, match=r"line 4: has the image of line 2 again"):
        manifests.build(FOLDER, dataset([*rows(2), rows(1)[0]]))


@pytest.mark.parametrize(
    ("patients", "sentence"),
    [
        ("PQ", "line 3: has the lesion_id of .*line 2, but another patient_id; make lesion ids unique"),
        (
            ["P", ""],
            "line 3: .* only one of the two names a patient; name the patient in every row of the lesion",
        ),
        (
            ["", "P"],
            "line 3: .* only one of the two names a patient; name the patient in every row of the lesion",
        ),
    ],
)
def test_a_lesion_of_two_patients_is_refused(
    dataset: Dataset, patients: Sequence[str], sentence: str
) -> None:
    cells = [
        {"image": "a.jpg", "needs_in_person": "1", "lesion_id": "1", "patient_id": patients[0]},
        {"image": "b.jpg", "needs_in_person": "0", "lesion_id": "1", "patient_id": patients[1]},
    ]
    with pytest.raises(ManifestError, match=sentence):
        manifests.build(FOLDER, dataset(cells))


def test_a_patient_and_a_lone_lesion_of_one_name_are_refused(dataset: Dataset) -> None:
    cells = [
        {"image": "a.jpg", "needs_in_person": "1", "lesion_id": "1", "patient_id": "X"},
        {"image": "b.jpg", "needs_in_person": "0", "lesion_id": "X", "patient_id": ""},
    ]
    with pytest.raises(
        ManifestError, match=r"line 3: names no patient, and its lesion_id is the patient_id of .*line 2"
    ):
        manifests.build(FOLDER, dataset(cells))


@pytest.mark.parametrize("other", ["0", ""])
def test_a_lesion_whose_pictures_disagree_goes_up(dataset: Dataset, other: str) -> None:
    cells = [
        {"image": "a.jpg", "needs_in_person": "1", "lesion_id": "L"},
        {"image": "b.jpg", "needs_in_person": other, "lesion_id": "L"},
        {"image": "c.jpg", "needs_in_person": "0", "lesion_id": "M"},
    ]
    built = manifests.build(FOLDER, dataset(cells))
    assert [record.needs_in_person for record in built.records] == [True, True, False]
    assert ("L",) in built.findings.values()
    assert built.findings["the photograph's own needs_in_person was not True and became so"] == ("b.jpg",)


@pytest.mark.parametrize(
    ("ending", "damage"),
    [
        ("jpg", Path.unlink),
        ("jpg", lambda path: path.write_bytes(path.read_bytes()[:200])),
        ("bmp", lambda path: None),
    ],
)
@pytest.mark.parametrize("other", ["0", ""])
def test_a_lesion_goes_up_for_a_picture_that_cannot_be_used(
    dataset: Dataset, ending: str, damage: Callable[[Path], object], other: str
) -> None:
    cells = [
        {"image": f"a.{ending}", "needs_in_person": "1", "lesion_id": "L"},
        {"image": "b.jpg", "needs_in_person": other, "lesion_id": "L"},
        *({**row, "needs_in_person": "0"} for row in rows(10)),
    ]
    root = dataset(cells)
    damage(root / f"a.{ending}")
    built = manifests.build(FOLDER, root)
    assert list(built.dropped.values()) == [(f"a.{ending}",)]
    assert {r.image_id for r in built.records if r.needs_in_person} == {"b.jpg"}
    assert ("L",) in built.findings.values()
    assert built.findings["the photograph's own needs_in_person was not True and became so"] == ("b.jpg",)


def test_more_than_a_tenth_of_bmp_files_are_refused(dataset: Dataset) -> None:
    cells = [*rows(8), {"image": "a.bmp", "needs_in_person": "0", "lesion_id": "A"}]
    with pytest.raises(
        ManifestError, match=r"1 of the 9 pictures .*save it as PNG: 1, such as that of .*line 10"
    ):
        manifests.build(FOLDER, dataset(cells))


def test_unknown_beside_false_stays_unknown(dataset: Dataset) -> None:
    cells = [
        {"image": "a.jpg", "needs_in_person": "0", "lesion_id": "L"},
        {"image": "b.jpg", "needs_in_person": "", "lesion_id": "L"},
    ]
    built = manifests.build(FOLDER, dataset(cells))
    assert [record.needs_in_person for record in built.records] == [False, None]


def test_one_file_under_two_labels_is_reported(dataset: Dataset, picture: Callable[..., None]) -> None:
    root = dataset(rows(4))
    picture(root / "00.jpg", 9)
    picture(root / "01.jpg", 9)
    findings = manifests.build(FOLDER, root).findings
    assert findings["the same file has two labels"] == ("00.jpg", "01.jpg")
    assert findings["the same file stands under two lesions"] == ("00.jpg", "01.jpg")


def test_a_drawing_stays_a_drawing_when_read_as_a_folder(dataset: Dataset) -> None:
    assert manifests.build(FOLDER, dataset(rows(2, source="synthetic-camera-a"))).synthetic
    assert not manifests.build(FOLDER, dataset(rows(2, source="clinic"))).synthetic


@pytest.fixture
def written(dataset: Dataset, tmp_path: Path) -> Path:
    manifests.build(FOLDER, dataset(rows(4, source="synthetic"))).write(tmp_path / "run")
    return tmp_path / "run"


def test_an_altered_table_is_refused(written: Path) -> None:
    table = written / "manifest.csv"
    table.write_bytes(table.read_bytes().replace(b"True", b"False", 1))
    with pytest.raises(ManifestError, match=r"manifest\.csv: altered since it was written"):
        manifests.read(written)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"synthetic": true', '"synthetic": false'),
        ('"records": 4', '"records": 5'),
        ('"True": 2', '"True": 3'),
    ],
)
def test_a_header_that_does_not_fit_its_table_is_refused(written: Path, old: str, new: str) -> None:
    header = written / "manifest.json"
    text = header.read_text(encoding="utf-8")
    assert old in text
    header.write_text(text.replace(old, new), encoding="utf-8")
    with pytest.raises(ManifestError, match="does not describe the table"):
        manifests.read(written)


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"format": 1}', '{"format": 2}'])
def test_a_broken_header_is_refused(written: Path, content: str) -> None:
    (written / "manifest.json").write_text(content, encoding="utf-8")
    with pytest.raises(ManifestError, match="build"):
        manifests.read(written)


@pytest.mark.parametrize("name", ["manifest.csv", "manifest.json"])
def test_half_a_manifest_is_none(written: Path, name: str) -> None:
    (written / name).unlink()
    with pytest.raises(ManifestError, match="no complete manifest"):
        manifests.read(written)


@pytest.mark.parametrize(
    ("table", "sentence"),
    [
        ("image_id\na\n", "expected the columns"),
        ("{header}\na,b\n", "line 2: unreadable number of cells"),
        ("{header}\n" + ",".join(["x"] * len(COLUMNS)) + "\n", "line 2: unreadable needs_in_person"),
    ],
)
def test_a_table_that_was_never_ours_is_refused(written: Path, table: str, sentence: str) -> None:
    path, header = written / "manifest.csv", written / "manifest.json"
    first = path.read_text(encoding="utf-8").splitlines()[0]
    old = sha256_of(path.read_bytes())
    path.write_text(table.format(header=first), encoding="utf-8")
    digest = sha256_of(path.read_bytes())
    header.write_text(header.read_text(encoding="utf-8").replace(old, digest), encoding="utf-8")
    with pytest.raises(ManifestError, match=sentence):
        manifests.read(written)


def test_a_failed_build_leaves_nothing_behind(dataset: Dataset, tmp_path: Path) -> None:
    root = dataset([*rows(2, patient_id="P"), {**rows(3, patient_id="Q")[2], "lesion_id": "L0"}])
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(ManifestError, match=r"line 4: has the lesion_id of .*line 2, but another patient_id"):
        manifests.build(FOLDER, root)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_picture_changed_after_the_manifest_is_refused(dataset: Dataset) -> None:
    root = dataset(rows(2))
    record = manifests.build(FOLDER, root).records[0]
    (root / record.path).write_bytes(b"other")
    with pytest.raises(ManifestError, match="changed since the manifest was built"):
        manifests.read_picture(root, record)
    (root / record.path).unlink()
    with pytest.raises(ManifestError, match=r"--data-root .* build the manifest again"):
        manifests.read_picture(root, record)


@pytest.mark.parametrize("path", ["../secret.jpg", "/secret.jpg", "a/../../secret.jpg"])
def test_a_picture_outside_the_root_is_never_read(
    tmp_path: Path, record: Callable[..., Record], path: str
) -> None:
    with pytest.raises(ManifestError, match="leaves the data root"):
        manifests.read_picture(tmp_path, record("a", path=path))


def test_every_reason_for_missing_is_one_account(tmp_path: Path, picture: Callable[..., None]) -> None:
    lines = [f"HAM_{number},ISIC_{number:02},nv,histo,50,male,back" for number in range(20)]
    table = "lesion_id,image_id,dx,dx_type,age,sex,localization\n" + "\n".join(lines) + "\n"
    (tmp_path / "HAM10000_metadata.csv").write_text(table, encoding="utf-8")
    for number in range(1, 20):
        picture(tmp_path / "images" / f"ISIC_{number:02}.jpg", number)
    os.truncate(tmp_path / "images" / "ISIC_19.jpg", 0)
    built = manifests.build(Data(source="ham10000"), tmp_path)
    assert built.dropped == {"image_missing": ("ISIC_00",), "image_empty": ("ISIC_19",)}


def test_a_large_manifest_is_written_and_read_in_order(
    tmp_path: Path, record: Callable[..., Record], manifest_of: Callable[[Sequence[Record]], Manifest]
) -> None:
    first = record("0")
    large = manifest_of([replace(first, image_id=f"{number:06}") for number in range(20_000)])
    digest = large.write(tmp_path)
    assert manifests.read(tmp_path) == (large, digest)


def test_a_reader_s_complaint_is_a_data_error(tmp_path: Path) -> None:
    with pytest.raises(DataError):
        manifests.build(Data(source="ham10000"), tmp_path)
