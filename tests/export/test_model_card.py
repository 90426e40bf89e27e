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
