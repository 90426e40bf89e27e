from __future__ import annotations

import csv
import io
import threading
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lesion_triage.bundle import pixels, quality
from lesion_triage.bundle.schema import PixelSpec, QualityLimits
from lesion_triage.config import Data, Split, Synthetic
from lesion_triage.data import manifest as manifests
from lesion_triage.data import split as splitting
from lesion_triage.data import synthetic
from lesion_triage.data.labels import label_for
from lesion_triage.errors import DataError


@pytest.fixture(scope="module")
def drawing(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("drawing") / "synthetic"
    synthetic.draw(60, 0.35, 0, folder)
    return folder


def table(folder: Path) -> list[dict[str, str]]:
    with (folder / synthetic.TABLE).open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_equal_parameters_give_equal_bytes(tmp_path: Path) -> None:
    synthetic.draw(8, 0.5, 1, tmp_path / "one")
    synthetic.draw(8, 0.5, 1, tmp_path / "two")
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


def test_another_seed_gives_other_pictures(tmp_path: Path) -> None:
    synthetic.draw(4, 0.5, 1, tmp_path / "one")
    synthetic.draw(4, 0.5, 2, tmp_path / "two")
    one, two = contents(tmp_path / "one"), contents(tmp_path / "two")
    assert not set(one.values()) & set(two.values())


def test_a_whole_drawing_is_not_repeated(tmp_path: Path) -> None:
    synthetic.draw(4, 0.5, 0, tmp_path / "d")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "d").rglob("*")}
    calls: list[int] = []
    synthetic.draw(4, 0.5, 0, tmp_path / "d", lambda done, total: calls.append(done))
    assert before == {path: path.stat().st_mtime_ns for path in (tmp_path / "d").rglob("*")}
    assert not calls


@pytest.mark.parametrize("lost", [synthetic.TABLE, f"{synthetic.PICTURES}/S000000-1.jpg"])
def test_half_a_drawing_is_drawn_again(tmp_path: Path, lost: str) -> None:
    synthetic.draw(4, 0.5, 0, tmp_path / "d")
    whole = contents(tmp_path / "d")
    (tmp_path / "d" / lost).unlink()
    synthetic.draw(4, 0.5, 0, tmp_path / "d")
    assert contents(tmp_path / "d") == whole


def test_other_parameters_replace_the_drawing(tmp_path: Path) -> None:
    synthetic.draw(6, 0.5, 0, tmp_path / "d")
    synthetic.draw(3, 0.5, 1, tmp_path / "d")
    synthetic.draw(3, 0.5, 1, tmp_path / "fresh")
    assert contents(tmp_path / "d") == contents(tmp_path / "fresh")


def test_an_interrupted_drawing_has_no_table(tmp_path: Path) -> None:
    def interrupt(done: int, total: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        synthetic.draw(4, 0.5, 0, tmp_path / "d", interrupt)
    assert not (tmp_path / "d" / synthetic.TABLE).exists()


def test_a_folder_of_other_files_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "cases.csv").write_text("mine", encoding="utf-8")
    with pytest.raises(DataError, match="expected an empty folder or an earlier drawing"):
        synthetic.draw(4, 0.5, 0, tmp_path)
    assert contents(tmp_path) == {"cases.csv": b"mine"}


def test_two_drawings_at_once_do_not_clear_each_other(tmp_path: Path) -> None:
    """Runs of two names share one folder of drawings in the cache."""
    others: list[threading.Thread] = []
    began = threading.Event()

    def start_other(done: int, total: int) -> None:
        if done == 1:
            others.append(threading.Thread(target=draw_too))
            others[0].start()
            began.wait(1.0)

    def draw_too() -> None:
        synthetic.draw(4, 0.5, 0, tmp_path / "d", lambda done, total: began.set())

    synthetic.draw(4, 0.5, 0, tmp_path / "d", start_other)
    named = {row["image"] for row in table(tmp_path / "d")}
    there = {f"{synthetic.PICTURES}/{path.name}" for path in (tmp_path / "d" / synthetic.PICTURES).iterdir()}
    others[0].join()
    assert there == named
    assert not began.is_set()  # the other found a complete drawing


def test_progress_counts_lesions(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    synthetic.draw(3, 0.5, 0, tmp_path / "d", lambda done, total: seen.append((done, total)))
    assert seen == [(1, 3), (2, 3), (3, 3)]


def test_the_share_of_irregular_lesions_is_as_asked(drawing: Path) -> None:
    kinds = {row["lesion_id"]: row["diagnosis"] for row in table(drawing)}
    assert Counter(kinds.values()) == {"irregular": 21, "regular": 39}


def test_every_row_says_that_it_is_drawn_and_agrees_with_the_label_table(drawing: Path) -> None:
    for row in table(drawing):
        assert row["source"].startswith("synthetic")
        label = label_for("synthetic", row["diagnosis"])
        assert row["needs_in_person"] == str(label.needs_in_person).lower()


def test_there_are_several_sources_pictures_per_lesion_and_unconfirmed_lesions(drawing: Path) -> None:
    rows = table(drawing)
    assert len({row["source"] for row in rows}) == 3
    assert set(Counter(row["lesion_id"] for row in rows).values()) == {1, 2, 3}
    assert {row["diagnosis_confirm_type"] for row in rows} == {"histopathology", "follow_up"}


def test_every_drawing_passes_the_default_quality_gate(drawing: Path) -> None:
    for row in table(drawing):
        data = (drawing / row["image"]).read_bytes()
        picture = pixels.decode(data, PixelSpec(size_px=64))
        assert quality.assess_quality(picture, QualityLimits()).refusals == (), row["image"]


def test_nothing_but_the_drawing_tells_the_kind(tmp_path: Path) -> None:
    synthetic.draw(400, 0.5, 0, tmp_path / "d")
    rows = {row["lesion_id"]: row for row in table(tmp_path / "d")}.values()
    for column in ("source", "sex", "anatom_site_general", "fitzpatrick_skin_type"):
        counts = Counter((row[column], row["diagnosis"]) for row in rows)
        for value in {row[column] for row in rows}:
            irregular, regular = counts[value, "irregular"], counts[value, "regular"]
            # Five standard deviations of a fair coin.
            assert abs(irregular - regular) <= 5 * np.sqrt(irregular + regular), (column, value)


def test_the_manifest_of_a_drawing_says_so_and_splits(tmp_path: Path) -> None:
    config = Data(source="synthetic", synthetic=Synthetic(lesions=60, positive_share=0.4))
    manifest = manifests.build(config, tmp_path / "d")
    assert manifest.synthetic
    assert not manifest.dropped
    splitting.check_disjoint(manifest, splitting.split(manifest, "a" * 64, Split()))


@pytest.mark.parametrize("kind", ["regular", "irregular"])
def test_one_picture_is_reproducible_and_fit_for_a_self_test(kind: synthetic.Kind) -> None:
    picture = synthetic.draw_picture(kind, 5)
    assert picture.mode == "RGB"
    assert picture.tobytes() == synthetic.draw_picture(kind, 5).tobytes()
    assert picture.tobytes() != synthetic.draw_picture(kind, 6).tobytes()
    encoded = io.BytesIO()
    picture.save(encoded, "PNG")
    decoded = pixels.decode(encoded.getvalue(), PixelSpec(size_px=64))
    assert quality.assess_quality(decoded, QualityLimits()).refusals == ()
    assert isinstance(picture, Image.Image)


@pytest.mark.slow
def test_drawing_is_quick(tmp_path: Path) -> None:
    started = time.process_time()
    synthetic.draw(200, 0.35, 0, tmp_path / "d")
    pictures = len(table(tmp_path / "d"))
    # Half of what one core of 2020 does, so that a busy machine is not a failure.
    assert pictures / (time.process_time() - started) > 75
