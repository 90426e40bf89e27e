from __future__ import annotations

import pytest

import tiny_bundle
from lesion_triage.config import Config
from lesion_triage.data.manifest import Manifest
from lesion_triage.export.model_card import model_card


@pytest.mark.parametrize("unit", ["lesion", "patient"])
def test_the_card_promises_for_what_the_certificate_counts(unit):
    """Of the lesions of patients who have several, more may be missed than of the patients."""
    parts = tiny_bundle.seal_arguments()
    config = Config.model_validate({"name": "tiny", "data": {"source": "synthetic"}})
    certificate = parts["certificate"].model_copy(update={"unit": unit})
    made = Manifest((), "synthetic", True, {}, ("A program.",))
    card = " ".join(model_card(config, made, parts["model"], certificate).split())
    assert f"the sensitivity for future {unit}s of the same kind is at least 95%" in card


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        ("common_threshold", "Score >= 0.500000 refers. On "),
        (
            "group_thresholds",
            "threshold of its certified group refers; the lowest of these thresholds is 0.5",
        ),
    ],
)
def test_the_lowest_of_several_thresholds_is_not_said_to_refer_everyone(rule, said):
    parts = tiny_bundle.seal_arguments()
    config = Config.model_validate({"name": "tiny", "data": {"source": "synthetic"}})
    certificate = parts["certificate"].model_copy(update={"rule": rule})
    made = Manifest((), "synthetic", True, {}, ("A program.",))
    card = " ".join(model_card(config, made, parts["model"], certificate).split())
    assert said in card
    assert ("Score >= " in card) is (rule == "common_threshold")
