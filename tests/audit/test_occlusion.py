from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from PIL import Image

from drawn_artefacts import skin
from lesion_triage.audit import checks, occlusion
from lesion_triage.audit.columns import Columns
from lesion_triage.audit.findings import Report, Verdict
from lesion_triage.audit.shortcuts import RowSample
from lesion_triage.bundle.document import sha256_of
from lesion_triage.bundle.schema import PixelSpec
from lesion_triage.config import Audit, Split
from lesion_triage.data.manifest import Manifest
from lesion_triage.data.records import Record
from lesion_triage.data.split import split
from lesion_triage.predictions import Prediction, Predictions

SIDE = 64
SPEC = PixelSpec(size_px=SIDE)


def graph_of(weights: np.ndarray) -> bytes:
    """A network whose logit is a weighted sum of the pixels."""
    flat = helper.make_tensor(
        "w", TensorProto.FLOAT, (SIDE * SIDE * 3, 1), weights.astype(np.float32).ravel()
    )
    shape = helper.make_tensor("shape", TensorProto.INT64, (2,), [-1, SIDE * SIDE * 3])
    one = helper.make_tensor("one", TensorProto.INT64, (1,), [-1])
    nodes = [
        helper.make_node("Cast", ["pixels"], ["real"], to=TensorProto.FLOAT),
        helper.make_node("Reshape", ["real", "shape"], ["rows"]),
        helper.make_node("MatMul", ["rows", "w"], ["embedding"]),
        helper.make_node("Reshape", ["embedding", "one"], ["logit"]),
        helper.make_node("Abs", ["logit"], ["novelty"]),
    ]
    graph = helper.make_graph(
        nodes,
        "sum",
        [helper.make_tensor_value_info("pixels", TensorProto.UINT8, ["n", SIDE, SIDE, 3])],
        [
            helper.make_tensor_value_info("logit", TensorProto.FLOAT, ["n"]),
            helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["n", 1]),
            helper.make_tensor_value_info("novelty", TensorProto.FLOAT, ["n"]),
        ],
        [flat, shape, one],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    onnx.checker.check_model(model)
    return model.SerializeToString()


def place(rows: slice, columns: slice) -> np.ndarray:
    """Darkness of one region."""
    weights = np.zeros((SIDE, SIDE, 3))
    weights[rows, columns] = -1 / 255
    return weights


MIDDLE, CORNER = place(slice(28, 36), slice(28, 36)), place(slice(0, 4), slice(0, 4))


@pytest.fixture(scope="module")
def photographed(tmp_path_factory):
    """Moles darker in positives, and a corner that is darker in them too."""
    root = tmp_path_factory.mktemp("moles")
    random = np.random.default_rng(0)
    records = []
    for number in range(240):
        positive = number % 2 == 0
        pixels = np.asarray(skin(number)).copy()
        shade = random.normal(40 if positive else 0, 15)
        pixels[76:116, 76:116] = np.clip(pixels[76:116, 76:116] - shade, 0, 255)
        pixels[:12, :12] = 120 if positive else 190
        path = root / f"{number:03d}.png"
        Image.fromarray(pixels).save(path)
        records.append(
            Record(
                image_id=path.name,
                path=path.name,
                lesion_id=f"lesion-{number}",
                needs_in_person=positive,
                source="north" if number % 4 < 2 else "south",
                sex="female",
                age_approx=50.0,
                sha256=sha256_of(path.read_bytes()),
                width_px=192,
                height_px=192,
            )
        )
    known = Manifest(tuple(records), "folder", synthetic=False)
    fractions = {"train": 0.2, "validation": 0.6, "calibration": 0.1, "test": 0.1}
    dealt = split(known, "0" * 64, Split.model_validate({"fractions": fractions}))
    return checks.AuditInput(known, dealt, root, SPEC)


def table_of(data, logit) -> Predictions:
    """Predictions of the validation split; ``logit(record, random)``."""
    random = np.random.default_rng(1)
    by_id = {record.image_id: record for record in data.manifest.records}
    rows = []
    for name in data.splits.image_ids("validation"):
        record = by_id[name]
        rows.append(
            Prediction(
                image_id=name,
                case_id=record.case_id,
                unit_id=record.unit_id,
                file_fingerprint="",
                pixel_fingerprint="",
                logit=logit(record, random),
                quality_codes="",
                novelty=None,
                needs_in_person=record.needs_in_person,
                diagnosis="",
                diagnosis_confirm_type="",
                source=record.source,
                sex="",
                age_approx=None,
                anatom_site_general="",
                fitzpatrick_skin_type="",
            )
        )
    return Predictions("validation", "0" * 64, "1" * 64, "2" * 64, tuple(rows))


def good(record, random):
    return float(random.normal(2.0 if record.needs_in_person else 0.0))


def occluded(data, weights):
    columns = Columns.from_manifest(data.manifest, data.splits)
    return occlusion.measure_occlusion(
        graph_of(weights), SPEC, table_of(data, good), columns, data.root, Audit()
    )


def test_a_model_that_looks_at_the_lesion_does_not_know_without_it(photographed):
    finding, table = occluded(photographed, MIDDLE)
    assert finding.verdict is Verdict.PASS
    whole, covered, box, alone = (row[1] for row in table.rows)
    assert whole > 0.9
    assert alone == pytest.approx(whole)
    assert max(covered, box) < 0.7


def test_a_model_that_looks_at_a_corner_still_knows_and_warns(photographed):
    finding, table = occluded(photographed, CORNER)
    assert finding.verdict is Verdict.WARN
    whole, covered, box, alone = (row[1] for row in table.rows)
    assert whole == covered == box > 0.95
    assert alone < 0.7


def test_covering_leaves_the_rest_untouched():
    pixels = np.asarray(skin(0).resize((SIDE, SIDE)))
    painted = occlusion.occluded_versions(pixels)
    assert (painted["lesion"][:8] == pixels[:8]).all()
    assert (painted["lesion"][SIDE // 2, SIDE // 2] != pixels[SIDE // 2, SIDE // 2]).any()
    assert (painted["surroundings"][SIDE // 2, SIDE // 2] == pixels[SIDE // 2, SIDE // 2]).all()
    changed = (painted["box"] != pixels).any(axis=2)
    assert 0.66 < changed.mean() < 0.74


def test_only_validation_is_opened(photographed, monkeypatch):
    opened = []
    read = occlusion.read_picture
    monkeypatch.setattr(
        occlusion,
        "read_picture",
        lambda root, record: (opened.append(record.image_id), read(root, record))[1],
    )
    occluded(photographed, MIDDLE)
    assert opened
    assert set(opened) <= set(photographed.splits.image_ids("validation"))


def test_a_model_that_ranks_sources_and_not_lesions_warns(photographed):
    # As vidir_molemax does: one source holds the negatives, and the model only knows the source.
    def source_of(record):
        return "screening" if not record.needs_in_person and int(record.image_id[:3]) % 8 < 6 else "clinic"

    records = tuple(replace(record, source=source_of(record)) for record in photographed.manifest.records)
    known = Manifest(records, "folder", synthetic=False)
    data = replace(photographed, manifest=known)
    sampled = RowSample.draw(Columns.from_manifest(data.manifest, data.splits), Audit())
    by_source = table_of(data, lambda record, random: float(random.normal(4.0 * (record.source == "clinic"))))
    by_lesion = table_of(data, good)
    assert occlusion.model_within_source(by_source, sampled).verdict is Verdict.WARN
    assert occlusion.model_within_source(by_lesion, sampled).verdict is Verdict.PASS


def test_a_model_no_better_than_age_sex_and_site_warns(photographed):
    records = tuple(
        replace(record, age_approx=70.0 if record.needs_in_person else 30.0)
        for record in photographed.manifest.records
    )
    aged = replace(photographed, manifest=Manifest(records, "folder", synthetic=False))
    sampled = RowSample.draw(Columns.from_manifest(aged.manifest, aged.splits), Audit())
    plain = RowSample.draw(Columns.from_manifest(photographed.manifest, photographed.splits), Audit())
    table = table_of(photographed, good)
    assert occlusion.model_and_metadata(table, sampled).verdict is Verdict.WARN
    assert occlusion.model_and_metadata(table, plain).verdict is Verdict.PASS


def test_metadata_that_are_the_same_for_all_rank_no_worse_than_chance_beside_the_model(photographed):
    sampled = RowSample.draw(Columns.from_manifest(photographed.manifest, photographed.splits), Audit())
    found = occlusion.model_and_metadata(table_of(photographed, good), sampled)
    assert found.measured[1].value == 0.5


@pytest.mark.parametrize("only", [None, True])
def test_a_model_that_could_score_no_picture_or_those_of_one_class_is_not_judged(photographed, only):
    def logit(record, random):
        return 1.0 if record.needs_in_person is only else None

    table = table_of(photographed, logit)
    report = Report((), (), {"with_model": False})
    found = checks.add_model(report, photographed, Audit(), graph_of(MIDDLE), table)
    assert [one.verdict for one in found.findings] == [Verdict.WARN] * 3
    assert all(one.summary.startswith("Not estimable") for one in found.findings)


def test_the_model_adds_its_findings_to_those_of_the_data(photographed):
    report = Report((), (), {"with_model": False})
    found = checks.add_model(report, photographed, Audit(), graph_of(MIDDLE), table_of(photographed, good))
    assert [one.code for one in found.findings] == [
        "model_and_metadata",
        "model_within_source",
        "lesion_covered",
    ]
    assert found.facts["with_model"]
