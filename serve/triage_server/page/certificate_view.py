"""The certificate as the page shows it: classes of the reference standard by number, all else as it is.

Imports the bundle's certificate.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lesion_triage.bundle.certificate import ALL, Certificate, GroupRow

_NAMED = "reference_class"


@dataclass(frozen=True)
class Shown:
    """What the template takes beside the certificate."""

    rows: Sequence[GroupRow]
    classes: Mapping[str, int]
    """Numbers of the classes, whose names are those of conditions and do not stand on this page."""
    assumptions: Sequence[str]
    together: bool
    """Whether groups were asked for beside everyone together."""


def of(certificate: Certificate) -> Shown:
    """A certificate, made ready."""
    names = [row.group for row in certificate.groups if row.by == _NAMED]
    classes = {name: number for number, name in enumerate(names, start=1)}
    return Shown(
        rows=certificate.groups,
        classes=classes,
        assumptions=[_numbered(said, classes) for said in certificate.assumptions],
        together=any(row.by != ALL for row in certificate.groups),
    )


def _numbered(said: str, classes: Mapping[str, int]) -> str:
    for name in sorted(classes, key=len, reverse=True):
        said = said.replace(f"{_NAMED} {name} ", f"class {classes[name]} ")
    return said
