"""The form that deletes promises a line of the audit log only where there is one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import tiny_bundle
from lesion_triage.bundle.scorer import Scorer
from lesion_triage.bundle.store import open_bundle
from triage_server.app import create_app
from triage_server.page.texts import LANGUAGES, Texts
from triage_server.settings import Settings

PICTURE = tiny_bundle.picture_bytes("below", "JPEG")


def logging_claims(browser: Any, language: str) -> list[bool]:
    """Whether the form says that deletions are logged, and whether it says that they are not."""
    number, texts = browser.send_case(PICTURE), Texts(language)
    browser.read_case(number)
    text = browser.get(f"/ui/cases/{number}").text
    return [texts(f"delete.{code}") in text for code in ("logged", "not_logged")]


@pytest.mark.parametrize("language", LANGUAGES)
def test_form_says_whether_an_audit_log_keeps_a_deletion(
    language: str, open_page: Callable[..., Any], browse: Any, flagged_bundle: Path, tmp_path: Path
) -> None:
    logged = browse(open_page(), language)
    logged.sign_in()
    assert logging_claims(logged, language) == [True, False]
    scorer = Scorer(open_bundle(flagged_bundle))
    settings = Settings(bundle=flagged_bundle, threads=1, reading_queue=str(tmp_path / "queue.sqlite"))
    app = create_app(scorer.bundle, scorer, settings, None)
    try:
        alone = browse(app, language)
        alone.sign_in()
        assert logging_claims(alone, language) == [False, True]
    finally:
        app.state.page.close()
        app.state.service.pool.close()
