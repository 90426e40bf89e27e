from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from drawn_artefacts import PLANTED, skin
from lesion_triage.audit import checks, picture_checks, shortcuts
from lesion_triage.audit.columns import Columns
from lesion_triage.audit.findings import Verdict
from lesion_triage.bundle.document import sha256_of
from lesion_triage.bundle.schema import PixelSpec
from lesion_triage.config import Audit, Split
from lesion_triage.data.manifest import Manifest
from lesion_triage.data.records import Record
from lesion_triage.data.split import split
from lesion_triage.errors import ManifestError

SPEC = PixelSpec(size_px=64)


@pytest.fixture
def photographed(tmp_path):
    """Plain skin, a third of it positive; ``draw(picture, positive, random)`` plants what it likes."""

    def make(draw=lambda picture, positive, random: picture, count=90, quality=lambda positive: 90):
        random = np.random.default_rng(0)
        records = []
        for number in range(count):
            positive = number % 3 == 0
            path = tmp_path / f"{number:03d}.jpg"
            draw(skin(number), positive, random).save(path, quality=quality(positive))
            data = path.read_bytes()
            records.append(
                Record(
                    image_id=path.name,
                    path=path.name,
                    lesion_id=f"lesion-{number}",
                    needs_in_person=positive,
                    source="clinic",
                    fitzpatrick_skin_type="V",
                    sha256=sha256_of(data),
                    width_px=192,
                    height_px=192,
                )
            )
        known = Manifest(tuple(records), "folder", synthetic=False)
        return checks.AuditInput(known, split(known, "0" * 64, Split()), tmp_path, SPEC)

    return make


def findings(data, **settings):
    report, _ = checks.audit_data(data, Audit(**settings))
    return {one.code: one for one in report.findings}


@pytest.mark.parametrize("artefact", PLANTED)
def test_an_artefact_on_positives_only_is_found_and_named(photographed, artefact):
    data = photographed(lambda picture, positive, random: PLANTED[artefact](picture) if positive else picture)
    found = findings(data)
    assert found[artefact].verdict is Verdict.FAIL
    assert "100.0% of" in found[artefact].summary


@pytest.mark.parametrize("artefact", PLANTED)
def test_an_artefact_that_does_not_care_for_the_label_passes(photographed, artefact):
    data = photographed(
        lambda picture, positive, random: PLANTED[artefact](picture) if random.random() < 0.4 else picture
    )
    assert findings(data)[artefact].verdict is Verdict.PASS


def test_an_artefact_in_too_few_positives_to_tell_is_no_pass(photographed):
    data = photographed(
        lambda picture, positive, random: PLANTED["ink"](picture) if random.random() < 0.4 else picture,
        count=30,
    )
    found = findings(data)["ink"]
    assert found.verdict is Verdict.WARN
    assert found.summary.startswith("Not estimable: fewer than ten positive or negative pictures (Ink in ")


def test_light_that_tells_the_label_is_found_in_the_frame(photographed):
    data = photographed(
        lambda picture, positive, random: picture.point(lambda level: level * 0.85) if positive else picture
    )
    assert findings(data)["frame_shortcut"].verdict is Verdict.FAIL


def test_compression_that_tells_the_label_is_found_in_the_bytes(photographed):
    found = findings(photographed(quality=lambda positive: 60 if positive else 95))
    assert found["file_size_shortcut"].verdict is Verdict.FAIL


def test_drawn_lesions_pass_every_check(drawn):
    known, splits, root = drawn
    report, seen = checks.audit_data(checks.AuditInput(known, splits, root, SPEC), Audit(pictures=300))
    assert seen is not None
    assert report.verdict is Verdict.PASS, [one.summary for one in report.findings if one.verdict != "pass"]


def test_no_picture_is_opened_when_none_is_asked_for(made, tmp_path):
    report, seen = checks.audit_data(checks.AuditInput(*made(300), tmp_path, SPEC), Audit(pictures=0))
    assert seen is None
    assert "ruler" not in {one.code for one in report.findings}


def test_half_of_the_opened_pictures_are_positive_and_none_is_of_test_or_calibration(made):
    sampled = shortcuts.RowSample.draw(Columns.from_manifest(*made(1000)), Audit())
    rows = picture_checks.draw_balanced(sampled, 100)
    assert rows.size == np.unique(rows).size == 100
    assert (sampled.columns.positive[rows] == 1).sum() == 50
    assert sampled.columns.is_modelled()[rows].all()
    everything = picture_checks.draw_balanced(sampled, 10_000)
    assert everything.tolist() == sampled.rows.tolist()


def test_skin_tone_never_decides(photographed):
    data = photographed(lambda picture, positive, random: skin(int(random.integers(99)), (108, 74, 56)))
    assert findings(data)["skin_tone"].verdict is Verdict.PASS


def test_a_picture_that_changed_since_the_manifest_stops_the_audit(photographed):
    data = photographed()
    victim = data.root / data.manifest.records[0].path
    Image.new("RGB", (192, 192)).save(victim)
    with pytest.raises(ManifestError, match="changed since"):
        checks.audit_data(data, Audit())


def test_a_picture_of_test_may_change_without_the_audit_noticing_for_it_is_not_opened(photographed):
    data = photographed()
    name = data.splits.image_ids("test")[0]
    Image.new("RGB", (192, 192)).save(data.root / name)
    checks.audit_data(replace(data), Audit())
