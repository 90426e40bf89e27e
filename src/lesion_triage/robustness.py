"""``lesion-triage robustness``: corrupt a run's test photographs, show it foreign ones, and count misses.

Imports the pipeline, the run's folder and ``evaluate``.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lesion_triage import config_file, pipeline
from lesion_triage.bundle.document import canonical_json
from lesion_triage.bundle.files import write_atomically
from lesion_triage.bundle.store import Bundle, open_bundle
from lesion_triage.calibrate.cases import gather_cases
from lesion_triage.calibrate.metrics import Proportion
from lesion_triage.console import echo, integer_from, progress_bar
from lesion_triage.data.corruptions import CORRUPTIONS, SEVERITIES
from lesion_triage.data.manifest import read_picture
from lesion_triage.data.records import Record
from lesion_triage.errors import ConfigError, RunError
from lesion_triage.evaluate import robustness, robustness_figure
from lesion_triage.evaluate.robustness import CaseInput, ForeignResult, Row
from lesion_triage.predictions import read as read_predictions
from lesion_triage.runs import FROZEN_CONFIG, Run, record_test_opening

FORMAT = 1
_PICTURES = frozenset({".jpg", ".jpeg", ".png", ".webp"})


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the verb."""
    parser.add_argument("run", type=Path, help="run folder whose bundle was evaluated")
    parser.add_argument("--data-root", type=Path, metavar="DIR", help="where the data are now")
    parser.add_argument(
        "--out",
        type=Path,
        required=True,
        metavar="DIR",
        help="write results.json, robustness.md and a figure there",
    )
    parser.add_argument(
        "--others",
        type=integer_from(1),
        default=300,
        metavar="N",
        help="other cases added to all positive ones, drawn at random (%(default)s)",
    )
    parser.add_argument(
        "--show",
        action="append",
        default=[],
        metavar="NAME=DIR",
        help="photographs of something else, searched in all sub-folders; may be repeated",
    )
    parser.add_argument(
        "--severities", type=int, nargs="+", choices=SEVERITIES, default=SEVERITIES, metavar="N"
    )
    parser.add_argument("--seed", type=integer_from(0), default=0)


def main(arguments: argparse.Namespace) -> int:
    """Measure, print, and write the three files."""
    foreign = _parse_named_folders(arguments.show)
    pipeline.make_output_folder(arguments.out)
    config = config_file.load(arguments.run / FROZEN_CONFIG, (), arguments.data_root, frozen=True)
    run = Run(config, arguments.run)
    bundle = open_bundle(run.folder / "bundle")
    _note_opening(run, bundle)
    cases = _cases(run, arguments.others, arguments.seed)
    # First, since one file that is no photograph ends the command, and corrupting takes minutes.
    echo("  showing photographs of something else")
    shown = robustness.measure_foreign(bundle, cases, foreign, seed=arguments.seed)
    with progress_bar("corrupting photographs") as tick:
        rows = robustness.measure_corruptions(
            bundle, cases, severities=arguments.severities, seed=arguments.seed, progress=tick
        )
    document = {
        "format": FORMAT,
        "bundle_name": bundle.header.name,
        "bundle_sha256": bundle.sha256,
        "certificate_id": bundle.certificate.certificate_id(),
        "synthetic": bundle.header.synthetic,
        "citation": list(bundle.header.data_citation),
        "cases": len(cases),
        "positives": sum(case.needs_in_person for case in cases),
        "unit": bundle.certificate.unit,
        "photographs": sum(len(case.files) for case in cases),
        "seed": arguments.seed,
        "rows": [asdict(row) for row in rows],
        "foreign": [asdict(one) for one in shown],
    }
    text = markdown(document, rows, shown)
    echo(text)
    _write_results(arguments.out, document, text, rows)
    return 0


def markdown(facts: Mapping[str, Any], rows: Sequence[Row], shown: Sequence[ForeignResult]) -> str:
    """The tables, as Markdown."""
    lines = [
        f"{facts['positives']} positive and {facts['cases'] - facts['positives']} other test cases with "
        f"{facts['photographs']} photographs; bundle {facts['bundle_sha256'][:16]}, certificate "
        f"{facts['certificate_id']}; seed {facts['seed']}. In brackets: 95 % intervals, exact where a "
        f"{facts['unit']} has one of what is counted, else by the effective number.",
        "",
        "| corruption | severity | positive cases missed | without gates | photographs refused "
        "| other cases that go up |",
        "|---|---|---|---|---|---|",
        *(_corruption_line(row) for row in rows),
    ]
    if shown:
        lines += [
            "",
            "| shown | photographs | go up | refused for quality | unfamiliar | AUROC of the novelty |",
            "|---|---|---|---|---|---|",
            *(_foreign_line(one) for one in shown),
            "",
            "Each photograph shown counts as independent: where several are of one person or one "
            "recording, these intervals are too narrow.",
        ]
    return "\n".join(lines)


def _corruption_line(row: Row) -> str:
    values = CORRUPTIONS[row.corruption].values if row.severity else ()
    level = f"{row.severity} ({values[row.severity - 1]:.3g})" if values else ""
    cells = (row.missed, row.missed_without_gates, row.refused, row.referred_others)
    return f"| {row.corruption.replace('_', ' ')} | {level} | {' | '.join(map(_share, cells))} |"


def _foreign_line(one: ForeignResult) -> str:
    auroc = "not estimable"
    if one.auroc is not None:
        auroc = f"{one.auroc.value:.3f} ({one.auroc.low:.3f} to {one.auroc.high:.3f})"
    cells = (one.sent_up, one.refused_by_quality, one.unfamiliar)
    return f"| {one.name} | {one.sent_up.trials} | {' | '.join(map(_share, cells))} | {auroc} |"


def _share(found: Proportion) -> str:
    return f"{found.value:.1%} ({found.low:.1%} to {found.high:.1%})"


def _cases(run: Run, others: int, seed: int) -> list[CaseInput]:
    """All positive test cases and a sample of the others, with histories as a platform would send them."""
    root = pipeline.data_root(run)
    records: dict[str, Record] = {record.image_id: record for record in pipeline.records(run, "test")}
    table, _ = read_predictions(run.folder / "predictions", "test")
    cases = gather_cases(table)
    negative = [case for case in cases if not case.needs_in_person]
    drawn = random.Random(seed).sample(negative, min(others, len(negative)))

    def reader(record: Record) -> robustness.Reader:
        return lambda: read_picture(root, record)

    return [
        CaseInput(
            files=tuple(reader(records[row.image_id]) for row in case.rows),
            history=case.history,
            needs_in_person=case.needs_in_person,
            unit_id=case.unit_id,
        )
        for case in (*(case for case in cases if case.needs_in_person), *drawn)
    ]


def _parse_named_folders(texts: Sequence[str]) -> dict[str, list[Path]]:
    named: dict[str, list[Path]] = {}
    for text in texts:
        name, files = _parse_named_folder(text)
        if name in named:
            raise ConfigError(f"--show '{text}': '{name}' was given twice; give each folder its own name.")
        named[name] = files
    return named


def _parse_named_folder(text: str) -> tuple[str, list[Path]]:
    name, equals, folder = text.partition("=")
    if not (name and equals and folder):
        raise ConfigError(f"--show '{text}': expected NAME=DIR.")
    if "|" in name or not name.isprintable():
        raise ConfigError(f"--show '{text}': the name is a cell of a table; leave out '|' and line breaks.")
    files = sorted(_find_pictures(Path(folder)))
    if not files:
        raise ConfigError(f"--show '{text}': no photograph in this folder or below it.")
    return name, files


def _find_pictures(folder: Path) -> Iterator[Path]:
    return (path for path in folder.rglob("*") if path.suffix.lower() in _PICTURES and path.is_file())


def _note_opening(run: Run, bundle: Bundle) -> None:
    """Record that the test split is opened, as ``evaluate`` does."""
    if not (run.folder / "report").is_dir():
        raise RunError(f"{run.folder}: expected an evaluated run; run `lesion-triage evaluate` first.")
    record_test_opening(run.folder, bundle.sha256, "robustness")


def _write_results(out: Path, document: Mapping[str, Any], text: str, rows: Sequence[Row]) -> None:
    write_atomically(out / "robustness.png", robustness_figure.figure(rows))
    write_atomically(out / "robustness.md", f"{text}\n".encode())
    write_atomically(out / "results.json", canonical_json(document).encode())
