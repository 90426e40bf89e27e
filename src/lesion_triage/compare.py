"""``lesion-triage compare``: two bundles on the test cases that they share, from their existing predictions.

Imports the pipeline and ``evaluate``. No picture is scored, so the test split is not opened again.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from lesion_triage import pipeline
from lesion_triage.console import echo
from lesion_triage.errors import ReportError
from lesion_triage.evaluate.comparison import compare_bundles
from lesion_triage.evaluate.comparison_page import markdown, write_comparison
from lesion_triage.evaluate.pdf import to_pdf


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the verb."""
    parser.add_argument("first", type=Path, metavar="RUN_A", help="folder of an evaluated run")
    parser.add_argument(
        "second", type=Path, metavar="RUN_B", help="folder of another; differences are B minus A"
    )
    parser.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        help="write index.html, comparison.md, comparison.json and figures there",
    )
    parser.add_argument(
        "--pdf", type=Path, metavar="FILE", help="also print the page as PDF; needs --out and Chromium"
    )
    parser.add_argument(
        "--names",
        action="store_true",
        help="also write changed_cases.csv; it names cases, so keep it on this machine",
    )


def main(arguments: argparse.Namespace) -> int:
    """Compare, print the tables, write the files. Returns 0.

    Raises:
        ReportError: the runs do not share test cases of both classes, an option needs --out, or --out is in
            a run's own report.
        RunError: a folder that is not that of an evaluated run.
    """
    if arguments.out is None and (arguments.pdf is not None or arguments.names):
        raise ReportError("--pdf and --names need the page: give --out DIR as well.")
    if arguments.out is not None:
        pipeline.make_output_folder(arguments.out)
    first, second = (pipeline.load_finished_run(folder) for folder in (arguments.first, arguments.second))
    found, both = compare_bundles(
        (first.bundle, first.table), (second.bundle, second.table), first.run.config.evaluate
    )
    echo(markdown(found))
    if arguments.out is not None:
        index = write_comparison(arguments.out, found, both, arguments.names)
        echo(f"\npage: {index}")
        if arguments.pdf is not None:
            to_pdf(index, arguments.pdf)
            echo(f"PDF: {arguments.pdf}")
    return 0
