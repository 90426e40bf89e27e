"""The verb ``transfer``: what it measures, what it leaves out, and what it says of the certificate."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

import tiny_bundle
from lesion_triage.bundle.document import sha256_of
from lesion_triage.bundle.fingerprints import (
    UsedPictures,
    file_fingerprint,
    format_fingerprints,
    pixel_fingerprint,
)
from lesion_triage.bundle.pixels import decode
from lesion_triage.bundle.schema import Disposition
from lesion_triage.bundle.scorer import Scorer, score_image
from lesion_triage.bundle.store import open_bundle, seal
from lesion_triage.cli import main
from lesion_triage.evaluate.summary import summary

CONFIG = """
name: other
data: {source: folder}
evaluate: {bootstrap_draws: 200}
tracking: {enabled: false}
"""
POSITIVE, NEGATIVE = 40, 30
MISSED = 6
PER_PATIENT = 2


def draw(path: Path, logit: float, number: int) -> None:
    """A picture of which the tiny graph, (red - blue) / 10 - 5, makes about ``logit``; no two look alike."""
    half = round(5 * (logit + 5))
    ground = np.empty((112, 112, 3), np.uint8)
    ground[:] = (140 + half, 120, 140 - half)
    ground[:, :56] = (100 + half, 60, 100 - half)
    signs = np.random.default_rng(number).permutation(np.tile((25, 231), 32)).astype(np.uint8)
    Image.fromarray(ground + signs.reshape(8, 8).repeat(14, 0).repeat(14, 1)[:, :, np.newaxis]).save(path)


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another dataset: 40 positive lesions, the last 6 of them below 0, and 30 others; two a patient."""
    folder = tmp_path_factory.mktemp("other")
    logits = [*[2.0] * (POSITIVE - MISSED), *[-2.0] * MISSED, *[-2.0] * NEGATIVE]
    with (folder / "cases.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["image", "needs_in_person", "patient_id", "lesion_id", "source"])
        for number, logit in enumerate(logits):
            draw(folder / f"{number}.png", logit, number)
            source = "phone" if number % 2 else "camera"
            patient, lesion = f"p{number // PER_PATIENT}", f"l{number}"
            writer.writerow([f"{number}.png", number < POSITIVE, patient, lesion, source])
    (folder / "other.yaml").write_text(CONFIG, encoding="utf-8")
    return folder


def transfer(bundle: Path, other: Path, out: Path, *more: str) -> int:
    words = [str(bundle), str(other / "other.yaml"), "--data-root", str(other), "--out", str(out)]
    return main(["transfer", *words, "--runs", str(out.parent / "runs"), *more])


def measured(bundle: Path, other: Path, out: Path, *more: str) -> dict:
    assert transfer(bundle, other, out, *more) == 0
    return results_in(out)


@pytest.fixture(scope="module")
def plain(other: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the result of a bundle without a novelty gate lies; the bundle is beside it."""
    folder = tmp_path_factory.mktemp("plain")
    assert transfer(tiny_bundle.make(folder / "bundle").folder, other, folder / "out") == 0
    return folder / "out"


def results_in(out: Path) -> dict:
    return json.loads((out / "results.json").read_text())


def made_from(folder: Path, *used: str) -> Path:
    """A tiny bundle that carries these fingerprints."""
    parts = tiny_bundle.seal_arguments()
    return seal(folder, **{**parts, "used_pictures": UsedPictures(fitted=format_fingerprints(used))}).folder


def test_dispositions_counted_are_those_that_the_server_gives(other, plain):
    scorer = Scorer(open_bundle(plain.parent / "bundle"))
    served = [
        scorer.score([(other / f"{n}.png").read_bytes()]).disposition for n in range(POSITIVE + NEGATIVE)
    ]
    below = [said is Disposition.below_threshold for said in served]
    found = results_in(plain)
    assert (found["split"], found["unit"], found["cases"]) == ("external", "patient", len(served))
    assert found["missed"] == sum(below[:POSITIVE]) == MISSED
    everyone = found["slices"][0]["metrics"]
    assert everyone["sensitivity"]["value"] == 1 - MISSED / POSITIVE
    assert everyone["referral_rate"]["value"] == pytest.approx(1 - sum(below) / len(served))


def test_slices_of_the_score_stand_beside_those_of_the_policy(plain):
    found = results_in(plain)
    names = [part["name"] for part in found["slices"]]
    assert names == [part["name"] for part in found["transfer"]["slices"]]
    assert {"all", "histology_confirmed", "source_camera", "source_phone"} == set(names)


def test_gate_that_sends_all_up_hides_nothing_of_the_score(other, tmp_path, capsys):
    pictures = [(other / f"{n}.png").read_bytes() for n in range(POSITIVE + NEGATIVE)]
    scorer = Scorer(tiny_bundle.make(tmp_path / "open"))
    spec, quality = scorer.bundle.header.pixels, scorer.bundle.policy.quality
    lowest = min(score_image(scorer._graph, spec, quality, picture).novelty for picture in pictures)
    gated = tiny_bundle.make(tmp_path / "gated", novelty_limit=lowest)
    found = measured(gated.folder, other, tmp_path / "out")
    part = found["transfer"]["slices"][0]
    assert found["abstained"] == found["cases"]
    assert part["refused_by_novelty"]["successes"] == found["cases"]
    assert found["slices"][0]["metrics"]["sensitivity"]["value"] == 1.0
    assert part["score_alone"]["metrics"]["sensitivity"]["value"] == 1 - MISSED / POSITIVE
    assert found["transfer"]["policy_claim"]["misses"] == 0
    patients = MISSED // PER_PATIENT
    assert found["transfer"]["score_claim"]["misses"] == patients
    text = capsys.readouterr().out
    assert f"{POSITIVE} of {POSITIVE} positive cases went up without a score" in text
    assert f"score alone: {patients} of {POSITIVE // PER_PATIENT} positive patients missed" in text


def test_page_says_that_the_certificate_does_not_hold(plain):
    certificate = open_bundle(plain.parent / "bundle").certificate
    text = (plain / "transfer.md").read_text()
    assert f"Certificate {certificate.certificate_id()} does not hold here" in text
    # 3 of 20 patients missed at a target of 0.95: P(3 or more of 20 misses) is 0.075, not refuted.
    assert "3 of 20 positive patients missed, and 0 of 30 negative cases went up; undecided" in text


def test_promise_that_these_cases_refute_is_called_refuted(other, tmp_path, capsys):
    # From logit 3 no picture is referred: every positive patient is missed.
    bundle = tiny_bundle.make(tmp_path / "bundle", threshold=0.95)
    assert transfer(bundle.folder, other, tmp_path / "out") == 0
    assert (
        "20 of 20 positive patients missed, and 0 of 30 negative cases went up; it would fail"
        in capsys.readouterr().out
    )


@pytest.mark.parametrize("written_again", [False, True])
def test_pictures_that_the_bundle_was_made_from_are_left_out_with_their_patients(
    other, tmp_path, written_again, capsys
):
    data = shutil.copytree(other, tmp_path / "data")
    picture = data / "0.png"
    if written_again:
        print_ = pixel_fingerprint(decode(picture.read_bytes(), tiny_bundle.PIXEL_SPEC).pixels)
        note = PngInfo()
        note.add_text("Comment", "written again")
        Image.open(picture).save(picture, pnginfo=note)
    else:
        print_ = file_fingerprint(sha256_of(picture.read_bytes()))
    found = measured(made_from(tmp_path / "bundle", print_), data, tmp_path / "out")
    assert found["transfer"]["excluded"] == {"used": 1, "related": PER_PATIENT - 1, "unlabelled": 0}
    assert found["cases"] == POSITIVE + NEGATIVE - PER_PATIENT
    assert "Left out: 1 photographs that the bundle was made from, 1 of the same" in capsys.readouterr().out


def test_dataset_that_the_bundle_knows_whole_is_refused(other, tmp_path, capsys):
    used = [file_fingerprint(sha256_of(path.read_bytes())) for path in other.glob("*.png")]
    assert transfer(made_from(tmp_path / "bundle", *used), other, tmp_path / "out") == 2
    assert "none of 70 labelled pictures is new to this bundle" in capsys.readouterr().err
    assert not any((tmp_path / "out").iterdir())


def test_dataset_without_a_label_is_refused_for_that(other, tmp_path, capsys):
    data = shutil.copytree(other, tmp_path / "data")
    cells = [row.split(",") for row in (data / "cases.csv").read_text(encoding="utf-8").splitlines()]
    label = cells[0].index("needs_in_person")
    unlabelled = [cells[0], *([*row[:label], "", *row[label + 1 :]] for row in cells[1:])]
    (data / "cases.csv").write_text("".join(",".join(row) + "\n" for row in unlabelled), encoding="utf-8")
    assert transfer(made_from(tmp_path / "bundle"), data, tmp_path / "out") == 2
    assert "no picture has a label, so nothing can be measured" in capsys.readouterr().err


def test_bundles_own_pictures_belong_to_evaluate(other, plain, tmp_path, capsys):
    found = results_in(plain)
    parts = tiny_bundle.seal_arguments()
    own = parts["certificate"].model_copy(update={"manifest_sha256": found["manifest_sha256"]})
    seal(tmp_path / "own", **{**parts, "certificate": own})
    assert transfer(tmp_path / "own", other, tmp_path / "out") == 2
    assert "`lesion-triage evaluate`" in capsys.readouterr().err


def test_test_split_is_that_of_the_configuration(other, tmp_path):
    found = measured(tiny_bundle.make(tmp_path / "bundle").folder, other, tmp_path / "out", "--split", "test")
    (run,) = (tmp_path / "runs").glob("[!.]*")
    split = json.loads((run / "splits.json").read_text())["image_ids"]["test"]
    assert found["photographs"] == len(split) < POSITIVE + NEGATIVE


def test_picture_without_a_label_is_left_out_and_counted(other, tmp_path):
    data = shutil.copytree(other, tmp_path / "data")
    table = (data / "cases.csv").read_text().replace("69.png,False", "69.png,")
    (data / "cases.csv").write_text(table)
    found = measured(tiny_bundle.make(tmp_path / "bundle").folder, data, tmp_path / "out")
    assert found["transfer"]["excluded"]["unlabelled"] == 1
    assert found["cases"] == POSITIVE + NEGATIVE - 1


def test_a_patient_of_whom_nothing_is_measured_makes_no_patients_of_the_others(other, tmp_path, capsys):
    data = shutil.copytree(other, tmp_path / "data")
    head, *cells = (row.split(",") for row in (data / "cases.csv").read_text().splitlines())
    cells = [[*row[:2], "", *row[3:]] for row in cells[:-1]] + [[cells[-1][0], "", *cells[-1][2:]]]
    (data / "cases.csv").write_text("".join(",".join(row) + "\n" for row in (head, *cells)))
    found = measured(tiny_bundle.make(tmp_path / "bundle").folder, data, tmp_path / "out")
    assert (found["unit"], found["transfer"]["excluded"]["unlabelled"]) == ("lesion", 1)
    assert f"{MISSED} of {POSITIVE} positive lesions missed" in capsys.readouterr().out


def test_result_that_could_not_be_written_is_refused_before_the_scoring(other, tmp_path, capsys):
    (tmp_path / "out").write_text("a file")
    assert transfer(tiny_bundle.make(tmp_path / "bundle").folder, other, tmp_path / "out") == 2
    assert "out: cannot be made a folder (File exists); choose another" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


def test_summary_prints_the_result_although_no_network_was_compared(plain):
    text = summary([plain / "results.json"])
    assert f"| All cases | {POSITIVE + NEGATIVE} ({POSITIVE}) | sensitivity | 0.850" in text
    assert "Torch" not in text


def test_showing_a_runs_bundle_other_cases_is_written_down_in_the_run(other, tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.yaml").write_text("name: run\n")
    bundle = tiny_bundle.make(run / "bundle")
    measured(bundle.folder, other, tmp_path / "out")
    (line,) = (run / "test_openings.jsonl").read_text().splitlines()
    said = json.loads(line)
    assert (said["by"], said["bundle_sha256"]) == ("transfer", open_bundle(bundle.folder).sha256)


def test_a_showing_that_cannot_be_written_down_in_the_run_does_not_happen(other, tmp_path, capsys):
    run = tmp_path / "run"
    (run / "test_openings.jsonl").mkdir(parents=True)
    (run / "config.yaml").write_text("name: run\n")
    bundle = tiny_bundle.make(run / "bundle")
    assert transfer(bundle.folder, other, tmp_path / "out") == 2
    captured = capsys.readouterr()
    assert "it was not opened" in captured.err
    assert captured.err.count("\n") == 1
    assert not (tmp_path / "out" / "results.json").exists()
