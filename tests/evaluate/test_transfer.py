"""The score alone is the score alone, and only the bundle's own graph may have computed it."""

from __future__ import annotations

from dataclasses import replace

import pytest

import tiny_bundle as tiny
from histories import flag
from lesion_triage.bundle.document import sha256_of
from lesion_triage.bundle.red_flags import RedFlags
from lesion_triage.calibrate.metrics import proportion
from lesion_triage.config import Evaluate
from lesion_triage.errors import PredictionsError
from lesion_triage.evaluate.results import evaluate
from lesion_triage.evaluate.transfer import Excluded, markdown, measure_transfer
from lesion_triage.predictions import Predictions
from made_predictions import row

NOTHING = Excluded(used=0, related=0, unlabelled=0)
DRAWS = Evaluate(bootstrap_draws=100)


def external(*groups):
    """A table of another dataset; each group is (cases, logit, positive, other columns)."""
    rows = [
        row(f"{place}-{number}", f"{place}-{number}", logit, positive, **columns)
        for place, (cases, logit, positive, columns) in enumerate(groups)
        for number in range(cases)
    ]
    model = sha256_of(tiny.GRAPH)
    return Predictions("external", "e" * 64, "f" * 64, model, tuple(rows))


def measured(bundle, table):
    return measure_transfer(table, bundle, DRAWS, unit="lesion", excluded=NOTHING)


def test_case_refused_for_quality_is_referred_by_the_policy_and_no_case_of_the_score(tmp_path):
    table = external((15, 1.0, True, {}), (5, -1.0, True, {}), (10, None, True, {}), (20, -1.0, False, {}))
    found = measured(tiny.make(tmp_path / "bundle"), table)
    everyone = found.slices[0]
    assert found.results.slices[0].metrics["sensitivity"].value == pytest.approx(25 / 30)
    assert everyone.score_alone.metrics["sensitivity"].value == pytest.approx(15 / 20)
    assert (everyone.refused_by_quality.successes, everyone.refused_by_novelty.successes) == (10, 0)
    assert (found.policy_claim.misses, found.policy_claim.positives) == (5, 30)
    assert (found.score_claim.misses, found.score_claim.positives) == (5, 20)


def test_refused_photographs_of_one_patient_are_one_refusal_and_not_ten(tmp_path):
    table = external((10, None, True, {"unit_id": "p"}), (20, 1.0, True, {}), (20, -1.0, False, {}))
    found = measured(tiny.make(tmp_path / "bundle"), table)
    once = proportion(10, 50)  # were each of them a patient
    for share in (found.slices[0].refused_by_quality, found.results.abstentions[0].abstained):
        assert (share.successes, share.trials) == (10, 50)
        assert share.low < once.low < once.high < share.high - 0.05


def test_unfamiliar_case_keeps_its_score_where_the_score_is_asked_alone(tmp_path):
    strange = {"sex": "female"}
    table = external((10, 1.0, True, {}), (10, -1.0, True, strange), (20, -1.0, False, {}))
    rows = tuple(replace(each, novelty=9.0 if each.sex else 1.0) for each in table.rows)
    found = measured(tiny.make(tmp_path / "bundle", novelty_limit=4.0), replace(table, rows=rows))
    everyone = found.slices[0]
    assert found.results.slices[0].metrics["sensitivity"].value == 1.0
    assert everyone.score_alone.metrics["sensitivity"].value == 0.5
    assert everyone.refused_by_novelty.successes == 10
    assert "10 of 20 positive cases went up without a score" in markdown(found, "elsewhere")


def test_red_flag_refers_by_the_policy_and_not_by_the_score(tmp_path):
    bleeding = RedFlags(flags=(flag({"field": "bleeding", "is": True}, "bleeding"),))
    said = {"history": '{"bleeding":true}'}
    table = external((20, -1.0, True, said), (20, -1.0, False, {}))
    found = measured(tiny.make(tmp_path / "bundle", red_flags=bleeding), table)
    assert (found.policy_claim.misses, found.score_claim.misses) == (0, 20)
    assert (found.policy_claim.verdict, found.score_claim.verdict) == ("undecided", "fails")


def test_table_of_another_graph_is_refused(tmp_path):
    table = external((20, 1.0, True, {}), (20, -1.0, False, {}))
    with pytest.raises(PredictionsError, match="model_sha256"):
        measured(tiny.make(tmp_path / "bundle"), replace(table, model_sha256="0" * 64))


def test_only_an_external_table_may_come_from_another_manifest(tmp_path):
    bundle = tiny.make(tmp_path / "bundle")
    table = external((20, 1.0, True, {}), (20, -1.0, False, {}))
    assert evaluate(table, bundle, DRAWS).split == "external"
    with pytest.raises(PredictionsError, match="manifest_sha256"):
        evaluate(replace(table, split="test"), bundle, DRAWS)
