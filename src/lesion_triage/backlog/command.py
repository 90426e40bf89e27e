"""``lesion-triage score-batch``: a backlog of cases, one row for each, in parquet.

Imports this package, the bundle and the console. After an interruption the same command resumes.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping
from pathlib import Path

from lesion_triage.backlog import engine, shards
from lesion_triage.backlog.photographs import Source, detect_source
from lesion_triage.backlog.rows import EXTRA_COLUMNS, NOT_SCORED
from lesion_triage.backlog.shards import CASES, Shards
from lesion_triage.backlog.state import Options, Summary
from lesion_triage.bundle.parallel import available_cpus
from lesion_triage.bundle.schema import Disposition
from lesion_triage.bundle.store import Bundle, open_bundle
from lesion_triage.console import echo, progress_bar
from lesion_triage.errors import BacklogError

SOME_NOT_SCORED = 1
"""Exit status of a run that finished, but with cases that could not be scored."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the verb."""
    parser.add_argument("bundle", type=Path, help="folder of a sealed bundle")
    parser.add_argument(
        "--cases",
        type=Path,
        required=True,
        metavar="PATH",
        help="CSV or parquet file with case_id and image, or a folder of pictures",
    )
    parser.add_argument(
        "--images", type=Path, metavar="DIR", help="folder of the images, if not that of the table"
    )
    parser.add_argument(
        "--case-is",
        choices=("picture", "folder"),
        help="what counts as a case in a folder: each picture, or all pictures of one sub-folder",
    )
    parser.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="new folder, or that of an interrupted run"
    )
    parser.add_argument(
        "--engine",
        choices=("local", "ray"),
        default="local",
        help="threads of this process, or Ray (%(default)s)",
    )
    parser.add_argument(
        "--address", metavar="HOST:PORT", help="address of a Ray cluster; without it, one is started here"
    )
    parser.add_argument(
        "--threads", type=int, metavar="N", help="threads of the local engine (default: number of processors)"
    )
    parser.add_argument(
        "--with",
        dest="extras",
        action="append",
        choices=tuple(EXTRA_COLUMNS),
        default=[],
        help="keep more than codes: each photograph's evidence, the note for the clinical record, the whole "
        "answer; may be given again",
    )
    parser.add_argument(
        "--language", default="en", metavar="TAG", help="language of note and answer (%(default)s)"
    )
    parser.add_argument(
        "--part-cases", type=int, default=2000, metavar="N", help="cases per result file (%(default)s)"
    )
    parser.add_argument(
        "--accept-unreadable",
        action="store_true",
        help="continue even if no photograph of a whole part can be read",
    )
    parser.add_argument(
        "--retry-unreadable",
        action="store_true",
        help="score parts again in which a photograph could not be read",
    )


def main(arguments: argparse.Namespace) -> int:
    """Score what is missing. Returns 0, or 1 if all is done but some cases could not be scored."""
    _check_options(arguments)
    source = detect_source(arguments.cases, arguments.images, arguments.case_is)
    if source.case_is is not None and arguments.out.resolve().is_relative_to(source.images):
        raise BacklogError(
            f"{arguments.out}: is in the folder of the pictures, and its files would be taken for "
            "photographs; name a folder outside it."
        )
    bundle = open_bundle(arguments.bundle)
    options = Options(
        part_cases=arguments.part_cases,
        extras=tuple(sorted(set(arguments.extras))),
        language=arguments.language,
    )
    with shards.exclusive_lock(arguments.out):
        folder = _prepare(arguments.out, source, bundle, options)
        if arguments.retry_unreadable:
            again = folder.unreadable_parts()
            echo(f"  {len(again)} parts are scored again because photographs in them could not be read")
            for part in again:
                folder.delete_part(part)
        _score(folder, bundle, arguments)
        summary = folder.finish()
    _print_summary(arguments.out, summary)
    return SOME_NOT_SCORED if summary.errors else 0


def _check_options(arguments: argparse.Namespace) -> None:
    if arguments.part_cases < 1 or (arguments.threads is not None and arguments.threads < 1):
        raise BacklogError("--part-cases and --threads must be whole numbers of at least 1.")
    if arguments.engine == "local" and arguments.address is not None:
        raise BacklogError("--address names a Ray cluster; give --engine ray with it.")
    if arguments.engine == "ray" and arguments.threads is not None:
        raise BacklogError("--threads is for --engine local; Ray has one worker for each processor but one.")


def _prepare(out: Path, source: Source, bundle: Bundle, options: Options) -> Shards:
    echo("  reading the list of cases")
    folder, frozen = shards.prepare(out, source, bundle, options)
    for what, count in sorted(frozen.left_out.items()):
        echo(f"  left out {count}: {what}")
    echo(f"  {frozen.cases} cases, {frozen.photographs} photographs")
    return folder


def _score(folder: Shards, bundle: Bundle, arguments: argparse.Namespace) -> None:
    missing, state = folder.missing_parts(), folder.state
    done = state.cases - sum(map(state.part_rows, missing))
    if done:
        echo(f"  {done} cases are already done")
    with progress_bar("scoring cases") as tick:
        tick(done, state.cases)

        def progress(cases: int) -> None:
            nonlocal done
            done += cases
            tick(done, state.cases)

        if arguments.engine == "ray":
            if arguments.address is None:
                # On any system, Ray reads this when it is imported, and then starts clusters that listen on
                # loopback only. No address passed to ray.init achieves that.
                os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
            from lesion_triage.backlog import ray_engine  # noqa: PLC0415 - the extra [ray] may be absent

            ray_engine.score_parts(
                folder,
                arguments.bundle,
                missing,
                arguments.address,
                progress,
                accept_unreadable=arguments.accept_unreadable,
            )
        else:
            engine.score_parts(
                folder,
                engine.make_row_builder(folder, bundle),
                missing,
                arguments.threads or available_cpus(),
                progress,
                accept_unreadable=arguments.accept_unreadable,
            )


def _print_summary(out: Path, summary: Summary) -> None:
    echo(f"  {summary.cases} cases in {out / CASES}; a clinician reads them all")
    for disposition in Disposition:
        echo(f"  {summary.dispositions.get(disposition, 0):>9} {disposition}")
    echo(f"  {summary.dispositions.get(NOT_SCORED, 0):>9} {NOT_SCORED}{_error_counts_text(summary.errors)}")


def _error_counts_text(errors: Mapping[str, int]) -> str:
    return f" ({', '.join(f'{code}: {count}' for code, count in errors.items())})" if errors else ""
