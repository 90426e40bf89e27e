"""The page of the certificate says what each group's cases are compared with."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import tiny_bundle
from lesion_triage.bundle.certificate import GroupRow
from lesion_triage.bundle.schema import Grouping
from lesion_triage.bundle.store import seal


def bundle_with(folder: Path, rule: str, groupings: tuple[Grouping, ...]) -> Path:
    """Certified for women and men, not for others."""
    parts = tiny_bundle.parts(groupings=groupings)
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
