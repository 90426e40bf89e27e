"""``lesion-triage sweep``: the arguments of the verb.

The search is imported when it starts: its libraries take seconds to import, and Optuna is an extra.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from lesion_triage.console import integer_from


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the verb, beyond those of the pipeline."""
    parser.add_argument(
        "--space",
        type=Path,
        required=True,
        metavar="YAML",
        help="keys and the values to search, docs/sweep.md",
    )
    parser.add_argument(
        "--trials",
        type=integer_from(1),
        required=True,
        metavar="N",
        help="trials of the whole study, however ended",
    )
    parser.add_argument(
        "--seeds",
        type=integer_from(1),
        metavar="K",
        help="training runs per trial; overrides the file's sweep.seeds",
    )
    parser.add_argument(
        "--storage", metavar="URL", help="database of the trials (SQLite in experiments/sweeps/studies.db)"
    )
    parser.add_argument(
        "--take-over",
        action="store_true",
        help="continue trials that another machine started and abandoned; never while it is still working",
    )


def main(arguments: argparse.Namespace) -> int:
    """Search, and print the outcome."""
    from lesion_triage.sweep import search  # noqa: PLC0415

    search.search(arguments)
    return 0
