"""``lesion-triage certificate``: a bundle's certificate as Markdown. Imports bundle and calibrate."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

from lesion_triage.bundle.certificate import Certificate, GroupRow, Look
from lesion_triage.bundle.messages import english_catalogue
from lesion_triage.bundle.store import Bundle, open_bundle
from lesion_triage.calibrate.wording import format_percent

_DRAWN = ("**Made from drawn pictures: it says nothing about people.**", "")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the verb."""
    parser.add_argument("bundle", type=Path, help="folder of a sealed bundle")


def main(arguments: argparse.Namespace) -> int:
    """Print the page."""
    print(page(open_bundle(arguments.bundle)), end="")
    return 0


def page(bundle: Bundle) -> str:
    """The certificate of a bundle as Markdown, for people; ``certificate.json`` is for programs."""
    certificate = bundle.certificate
    lines = [
        f"# Certificate {certificate.certificate_id()} of {_line(bundle.header.name)}",
        "",
        *(_DRAWN if bundle.header.synthetic else ()),
        english_catalogue().notice,
        "",
        f"With {format_percent(certificate.confidence)}% confidence, the policy refers or abstains on at "
        f"least {format_percent(certificate.target_sensitivity)}% of future positive {certificate.unit}s "
        "that are exchangeable with those it was certified on"
        + (", and of each group below that is certified, all together." if certificate.groups[1:] else "."),
        "",
        *_facts(bundle, certificate),
        "",
        "## Groups",
        "",
        f"| by | group | positives | {_abstained(certificate)} | missed | allowed | lower bound "
        "| threshold it needs |",
        "|---|---|---|---|---|---|---|---|",
        *(_row(row) for row in certificate.groups),
        "",
        "## It holds only if",
        "",
        *(f"- {_line(said)}" for said in certificate.assumptions),
        "",
        "## Earlier looks",
        "",
        *(_looks(certificate.ledger) or ["none"]),
    ]
    return "\n".join(lines) + "\n"


def _facts(bundle: Bundle, certificate: Certificate) -> Iterator[str]:
    yield "| | |"
    yield "|---|---|"
    yield f"| issued | {_cell(certificate.issued_at)}, {_cell(certificate.purpose)} |"
    yield f"| site | {_cell(certificate.site) or 'the data that the model came with'} |"
    yield f"| rule | {certificate.rule.replace('_', ' ')}, by {certificate.method.replace('_', ' ')} |"
    yield f"| unit | {certificate.unit}; {certificate.aggregation} over photographs |"
    yield f"| threshold | {certificate.threshold:.6g} |"
    yield f"| lower bound of the sensitivity | {certificate.sensitivity_lower_bound:.4f} |"
    yield f"| confidence, if selected among looks | {certificate.confidence_if_selected:g} |"
    yield f"| bundle | {bundle.sha256} |"
    for name in ("model", "policy", "cases", "predictions", "manifest", "splits"):
        yield f"| {name} | {getattr(certificate, f'{name}_sha256') or 'none: not from one split'} |"


def _abstained(certificate: Certificate) -> str:
    return "not scored, or flagged" if certificate.red_flags_counted else "not scored"


def _row(row: GroupRow) -> str:
    name = row.group if row.members == (row.group,) else f"{row.group} ({', '.join(row.members)})"
    counts = f"{row.positives} | {row.positives_abstained} | {row.misses_seen} "
    counted = f"| {_cell(row.by)} | {_cell(name)} | {counts}"
    if row.misses_allowed is None or row.sensitivity_lower_bound is None:
        return counted + f"| **NOT CERTIFIABLE**: takes {row.minimum_positives} | | |"
    needs = "any" if row.threshold is None else f"{row.threshold:.6g}"
    return counted + f"| {row.misses_allowed} | {row.sensitivity_lower_bound:.4f} | {needs} |"


def _line(text: str) -> str:
    """Free text on one line: a line break in it could forge a line of the page."""
    return " ".join(text.split())


def _cell(text: str) -> str:
    return _line(text).replace("|", "\\|")


def _looks(ledger: tuple[Look, ...]) -> list[str]:
    return [
        f"- {_line(look.looked_at)}{f', {_line(look.site)}' if look.site else ''}: {_line(look.purpose)}; "
        f"{look.positives} positives, threshold {look.threshold:.6g}, cases {look.cases_sha256[:16]}, model "
        f"{look.model_sha256[:16]}"
        for look in ledger
    ]
