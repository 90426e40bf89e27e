"""The page of the certificate says what each group's cases are compared with."""

from __future__ import annotations

import re
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest

import tiny_bundle
from lesion_triage.bundle.certificate import ALL_UNITS, BY_SITE, Dimension, GroupRow
from lesion_triage.bundle.schema import Grouping
from lesion_triage.bundle.store import seal
from lesion_triage.calibrate import pooling
from triage_server.page.texts import LANGUAGES, Texts


def bundle_with(folder: Path, rule: str, groupings: tuple[Grouping, ...]) -> Path:
    """Certified for women and men, not for others."""
    parts = tiny_bundle.seal_arguments(groupings=groupings)
    everyone = parts["certificate"].groups[0]
    none = {
        "status": "not_certifiable",
        "positives": 7,
        "misses_allowed": None,
        "sensitivity_lower_bound": None,
        "threshold": None,
    }
    groups = [
        GroupRow(**{**dict(everyone), "by": "sex", "group": name, "members": (name,), **more})
        for name, more in (("female", {"threshold": 0.5}), ("male", {"threshold": 0.625}), ("other", none))
    ]
    change = {"rule": rule, "groups": (everyone, *groups)}
    certificate = parts["certificate"].model_copy(update=change)
    return seal(folder, **{**parts, "certificate": certificate}).folder


def thresholds(text: str) -> tuple[list[str], str]:
    """Of the rows, and among the facts."""
    rows = re.findall(r"<tr.*?</tr>", text, re.DOTALL)[1:]
    found = [re.findall(r"<td[^>]*>(.*?)</td>", row)[2] for row in rows]
    fact = re.search(r"<dt>Threshold</dt><dd>(.*?)</dd>", text)
    assert fact
    return found, fact[1]


@pytest.mark.parametrize(
    ("rule", "own", "rows", "fact"),
    [
        ("common_threshold", None, ["0.500000"] * 4, "0.500000"),
        ("common_threshold", {"female": 0.5, "male": 0.5}, ["0.500000"] * 3 + ["none: goes up"], "0.500000"),
        (
            "group_thresholds",
            {"female": 0.5, "male": 0.625},
            ["by group", "0.500000", "0.625000", "none: goes up"],
            "by group; the lowest is 0.500000",
        ),
    ],
)
def test_certificate_shows_the_threshold_that_each_group_is_compared_with(
    rule: str,
    own: dict[str, float] | None,
    rows: list[str],
    fact: str,
    open_page: Callable[..., Any],
    browse: Any,
    tmp_path: Path,
) -> None:
    groupings = () if own is None else (Grouping(by="sex", thresholds=own),)
    browser = browse(open_page(bundle_with(tmp_path / "groups", rule, groupings)))
    browser.sign_in()
    assert thresholds(browser.get("/ui/certificate").text) == (rows, fact)


def tally(site: str) -> pooling.Tally:
    """Of a site whose hundred positive units all have the score 0.75."""
    return pooling.Tally(
        site=site,
        counted_at="2026-01-01T00:00:00Z",
        unit="lesion",
        model_sha256="a" * 64,
        scoring_sha256="b" * 64,
        cases_sha256=sha256(site.encode()).hexdigest(),
        positives=100,
        positives_abstained=0,
        misses=pooling.count_misses(np.full(100, 0.75)),
    )


@pytest.mark.parametrize("language", LANGUAGES)
def test_pooled_certificate_is_shown_with_the_names_of_its_sites_as_they_are(
    language: str, open_page: Callable[..., Any], browse: Any, tmp_path: Path
) -> None:
    parts = tiny_bundle.seal_arguments()
    _, groups = pooling.pool([tally("Ely"), tally("other")], 0.95, 0.95, each_site=True)
    certificate = parts["certificate"].model_copy(update={"groups": groups, "method": "pooled_counts"})
    folder = seal(tmp_path / "pooled", **{**parts, "certificate": certificate}).folder
    browser = browse(open_page(folder), language)
    browser.sign_in()
    shown = browser.get("/ui/certificate")
    assert shown.status_code == 200
    by = Texts(language)("certificate.by.site")
    for site in ("Ely", "other"):
        assert re.search(rf'<td>{by}</td>\s*<th scope="row">{site}</th>', shown.text)


@pytest.mark.parametrize("language", LANGUAGES)
def test_whatever_groups_may_be_told_apart_by_has_its_word(language: str) -> None:
    texts = Texts(language)
    assert all(f"certificate.by.{by}" in texts for by in (ALL_UNITS, BY_SITE, *get_args(Dimension)))


def test_field_that_the_certificate_asks_for_says_so_to_who_does_not_see_it(
    open_page: Callable[..., Any], browse: Callable[..., Any], tmp_path: Path
) -> None:
    groupings = (Grouping(by="sex", thresholds={"female": 0.5, "male": 0.625}),)
    browser = browse(open_page(bundle_with(tmp_path / "groups", "group_thresholds", groupings)))
    browser.sign_in()
    text = browser.get("/ui/new").text
    assert re.findall(r'name="(\w+)"[^>]* aria-describedby="(\w+)-asked"', text) == [("sex", "sex")]
    assert re.search(r'id="sex-asked">The certificate asks for this', text)
