"""Promises that every reader of a public dataset keeps, on small copies in the official layout."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import h5py
import pytest

from lesion_triage import config
from lesion_triage.bundle.history import History
from lesion_triage.bundle.pixels import decode
from lesion_triage.bundle.schema import PixelSpec
from lesion_triage.data import manifest as manifests
from lesion_triage.data.labels import LABELS
from lesion_triage.data.records import GROUP_FIELDS
from lesion_triage.data.sources import READERS, ddi, fitzpatrick17k, pad_ufes_20, scin
from lesion_triage.errors import DataError
from made_sources import MADE, MadeDataset

ALL = pytest.mark.parametrize("name", list(MADE))
WITH_TABLE = pytest.mark.parametrize("name", [name for name in MADE if name != "dermamnist"])
Make = Callable[..., MadeDataset]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    def made(name: str, **options: object) -> MadeDataset:
        return MADE[name](tmp_path / name, **options)

    return made


def test_every_dataset_of_the_configuration_has_a_reader_a_fixture_and_codes() -> None:
    named = set(config.DatasetName.__args__) - {"folder"}
    assert named == set(READERS) == set(MADE)
    assert named <= set(LABELS)


@ALL
def test_every_row_is_read_with_its_label(make: Make, name: str) -> None:
    made = make(name)
    listing = READERS[name](made.root)
    assert {record.image_id: record.needs_in_person for record in listing.records} == made.truth
    assert len({record.lesion_id for record in listing.records}) == made.lesions
    assert not listing.missing


@ALL
def test_sex_site_and_skin_type_are_words_that_a_platform_can_send(make: Make, name: str) -> None:
    for record in READERS[name](make(name).root).records:
        History(**{field: getattr(record, field) or None for field in GROUP_FIELDS})


@pytest.mark.parametrize(
    "words",
    [ddi.SKIN_TONES, fitzpatrick17k.SKIN_TYPES, *(m.SEXES for m in (pad_ufes_20, scin))]
    + [m.SKIN_TYPES for m in (pad_ufes_20, scin)],
)
def test_every_word_of_ours_for_a_dataset_s_can_be_sent(words: Mapping[str, str]) -> None:
    assert [History(sex=word).sex for word in words.values() if word] == [w for w in words.values() if w]


@pytest.mark.parametrize("name", ["bcn20000", "derm7pt", "ham10000", "isic_2020"])
def test_a_word_that_no_platform_can_send_is_refused_with_its_line(make: Make, name: str) -> None:
    made = make(name)
    text = made.table.read_text(encoding="utf-8")
    assert "male" in text
    made.table.write_text(text.replace("male", "m?", 1), encoding="utf-8")
    with pytest.raises(DataError, match=r"line \d: sex is no word that a platform can send"):
        READERS[name](made.root)


@ALL
def test_no_picture_is_opened(make: Make, name: str) -> None:
    whole = READERS[name](make(name).root)
    broken = make(name, draw=lambda seed, kind: b"no picture")
    assert READERS[name](broken.root) == whole


@ALL
def test_a_manifest_is_built_and_every_picture_read_back(make: Make, name: str) -> None:
    made = make(name)
    built = manifests.build(config.Data(source=name), made.root)
    assert len(built.records) == len(made.truth)
    for record in built.records:
        data = manifests.read_picture(made.root, record)
        picture = decode(data, PixelSpec(size_px=32))
        assert (picture.width_px, picture.height_px) == (record.width_px, record.height_px)


@WITH_TABLE
def test_a_missing_picture_is_named_and_the_others_are_read(make: Make, name: str) -> None:
    made = make(name)
    file, missing = made.removable_picture
    if file.suffix == ".hdf5":
        with h5py.File(file, "a") as stream:
            del stream[missing]
    else:
        file.unlink()
    listing = READERS[name](made.root)
    assert listing.missing == (missing,)
    assert {record.image_id for record in listing.records} == made.truth.keys() - {missing}


@WITH_TABLE
def test_a_code_that_no_one_knows_is_refused_with_its_line(make: Make, name: str) -> None:
    made = make(name)
    good, wrong = made.code
    text = made.table.read_text(encoding="utf-8")
    assert good in text
    made.table.write_text(text.replace(good, wrong, 1), encoding="utf-8")
    with pytest.raises(DataError, match=r"line \d: .*(known|did you mean|exactly one class)"):
        READERS[name](made.root)


@WITH_TABLE
@pytest.mark.parametrize("damage", ["cut", "other columns", "empty", "binary"])
def test_a_damaged_table_is_refused_in_one_sentence(make: Make, name: str, damage: str) -> None:
    made = make(name)
    text = made.table.read_text(encoding="utf-8").rstrip("\n")
    if name == "ph2":
        text = text[: text.index("\n\n")]
    broken = {
        "cut": text[: text.rindex("||" if name == "ph2" else ",") - 8].encode(),
        "other columns": b"a,b\n1,2\n",
        "empty": b"",
        "binary": b"\xff\xfe\x00\x81" * 20,
    }[damage]
    made.table.write_bytes(broken)
    with pytest.raises(DataError) as caught:
        READERS[name](made.root)
    assert made.table.name in str(caught.value)
    assert "\n" not in str(caught.value)


@WITH_TABLE
def test_a_missing_table_says_what_was_expected(make: Make, name: str) -> None:
    for number in range(len(make(name).tables)):
        table = make(name).tables[number]
        table.unlink()
        with pytest.raises(DataError, match=r"expected .*--data-root"):
            READERS[name](table.parent if name != "derm7pt" else table.parents[1])


@ALL
def test_a_wrong_folder_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError, match="--data-root"):
        READERS[name](tmp_path)


@ALL
def test_citation_and_licence_are_stated_once_and_on_every_record(make: Make, name: str) -> None:
    listing = READERS[name](make(name).root)
    (citation,) = listing.citation
    assert "doi:10." in citation or "arXiv:" in citation
    assert all(record.copyright_license and record.attribution for record in listing.records)


@ALL
def test_paths_are_relative_with_forward_slashes(make: Make, name: str) -> None:
    for record in READERS[name](make(name).root).records:
        assert not Path(record.path).is_absolute()
        assert ".." not in record.path
        assert "\\" not in record.path


@ALL
def test_a_reader_s_docstring_has_citation_licence_page_and_traps(name: str) -> None:
    module = __import__(READERS[name].__module__, fromlist=["read"])
    text = " ".join((module.__doc__ or "").split())
    assert "doi:10." in text or "arXiv:" in text
    assert "CC BY" in text or "icence" in text or "License" in text
    assert "Official page" in text or "official page" in text
    assert "raps:" in text or "predicts the label" in text
