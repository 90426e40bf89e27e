"""``lesion-triage report``: write a run's report again, compare it with another run, or print it as PDF.

Imports the pipeline and ``evaluate``. No picture is scored, so the test split is not opened again.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from lesion_triage import pipeline
from lesion_triage.console import echo
from lesion_triage.errors import ReportError
from lesion_triage.evaluate.comparison import compare_bundles
from lesion_triage.evaluate.comparison_page import render_section
from lesion_triage.evaluate.pdf import to_pdf
from lesion_triage.evaluate.report import PAGE, write_report


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the verb."""
    parser.add_argument("run", type=Path, help="folder of an evaluated run")
    parser.add_argument("--out", type=Path, metavar="DIR", help="write the report again there")
    parser.add_argument(
        "--pdf",
        type=Path,
        metavar="FILE",
        help="print the report of --out, or else the run's own, as an A4 PDF with the Chromium on PATH",
    )
    parser.add_argument(
        "--compare-with",
        type=Path,
        metavar="RUN",
        help="add a section that compares with this run; needs --out",
    )
    parser.add_argument(
        "--licensed-pictures",
        action="store_true",
        help="show photographs of people if the data name a licence; keep it on this machine; needs --out",
    )
    parser.add_argument("--data-root", type=Path, metavar="DIR", help="where the pictures are now")


def main(arguments: argparse.Namespace) -> int:
    """Write and print what was asked for. Returns 0.

    Raises:
        ReportError: nothing was asked for, an option needs --out, --out is in a run's own report, or there
            is no browser.
        RunError: not an evaluated run.
    """
    more = arguments.compare_with is not None or arguments.licensed_pictures
    if arguments.out is None and (more or arguments.pdf is None):
        raise ReportError(
            "give --out DIR for a new report, with or without --pdf FILE; --pdf FILE alone prints the run's "
            "own report."
        )
    if arguments.out is None:
        report_folder = arguments.run if (arguments.run / PAGE).is_file() else arguments.run / pipeline.REPORT
        to_pdf(report_folder / PAGE, arguments.pdf)
    else:
        index = _write_new_report(arguments)
        echo(f"report: {index}")
        if arguments.pdf is not None:
            to_pdf(index, arguments.pdf)
    if arguments.pdf is not None:
        echo(f"PDF: {arguments.pdf}")
    return 0


def _write_new_report(arguments: argparse.Namespace) -> Path:
    pipeline.make_output_folder(arguments.out)
    finished_run = pipeline.load_finished_run(arguments.run, arguments.data_root)
    return write_report(
        arguments.out,
        finished_run.compute_results(),
        finished_run.table,
        finished_run.bundle,
        finished_run.manifest,
        pipeline.data_root(finished_run.run)
        if arguments.licensed_pictures or finished_run.bundle.header.synthetic
        else None,
        licensed_pictures=arguments.licensed_pictures,
        comparison=_comparison(finished_run, arguments.compare_with),
    )


def _comparison(finished_run: pipeline.FinishedRun, other: Path | None) -> str:
    if other is None:
        return ""
    other_run = pipeline.load_finished_run(other)
    ours, theirs = (finished_run.bundle, finished_run.table), (other_run.bundle, other_run.table)
    return render_section(*compare_bundles(theirs, ours, finished_run.run.config.evaluate))
