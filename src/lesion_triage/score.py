"""``lesion-triage score``: photographs in, JSON lines out. Imports the bundle package only."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from pydantic import ValidationError

from lesion_triage.bundle.document import first_problem
from lesion_triage.bundle.history import history_from_json
from lesion_triage.bundle.languages import Languages
from lesion_triage.bundle.scorer import Scorer
from lesion_triage.bundle.store import open_bundle
from lesion_triage.errors import ImageError, ScoringError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the verb."""
    parser.add_argument("bundle", type=Path, help="folder of a sealed bundle")
    parser.add_argument("images", type=Path, nargs="+", metavar="IMAGE", help="photograph: JPEG, PNG or WebP")
    parser.add_argument(
        "--one-case", action="store_true", help="all photographs show one lesion; without it each is a case"
    )
    parser.add_argument(
        "--history", default="{}", metavar="JSON", help='such as {"bleeding": true, "age_years": 61}'
    )
    parser.add_argument("--language", default="en", metavar="TAG", help="language of all texts (%(default)s)")
    parser.add_argument(
        "--catalogues", type=Path, metavar="DIR", help="a site's own message catalogues, see docs/messages.md"
    )
    parser.add_argument(
        "--note",
        action="store_true",
        help="print the note for the clinical record instead of JSON; of one case only",
    )


def main(arguments: argparse.Namespace) -> int:
    """Score, and print. Returns 0, or 2 if any case could not be scored."""
    return score(
        arguments.bundle,
        arguments.images,
        arguments.one_case,
        arguments.history,
        arguments.language,
        arguments.catalogues,
        arguments.note,
    )


def score(
    bundle: Path,
    images: Sequence[Path],
    one_case: bool,
    history: str = "{}",
    language: str = "en",
    catalogues: Path | None = None,
    note: bool = False,
) -> int:
    """Print one JSON line per case; a picture that cannot be used gets a line with its error.

    Args:
        bundle: folder of a sealed bundle; it must pass its self-test.
        images: photographs.
        one_case: True: they all show one lesion.
        history: JSON object with the fields of ``History``; the same for every case.
        language: of all texts.
        catalogues: folder of a site's own message catalogues.
        note: print the note for the clinical record instead of the JSON line.

    Returns:
        0, or 2 if any case could not be scored.

    Raises:
        BundleError: the bundle is incomplete or altered.
        ScoringError: the history is not valid, or a note is asked for more than one case.
        ConfigError: there are no texts in this language.
    """
    if note and len(images) > 1 and not one_case:
        raise ScoringError(
            f"--note: expected one case, found {len(images)}; a note names no photograph, and could be filed "
            "with another case. Score them one by one, or add --one-case if all show one lesion."
        )
    try:
        parsed_history = history_from_json(history)
    except ValidationError as error:
        raise ScoringError(f"--history: {first_problem(error, 'history')}.") from None
    opened = open_bundle(bundle)
    codes = [flag.code for flag in opened.policy.red_flags.flags]
    scorer = Scorer(opened, Languages.for_flags(codes, language, catalogues))
    scorer.self_test()
    max_bytes = opened.header.pixels.max_bytes
    status = 0
    for case in [list(images)] if one_case else [[image] for image in images]:
        line: dict[str, object] = {"images": [str(image) for image in case]}
        try:
            files = [_read(number, image, max_bytes) for number, image in enumerate(case, start=1)]
            answer = scorer.score(files, parsed_history)
            line["answer"] = answer.model_dump(mode="json")
        except (ImageError, ScoringError) as error:
            code = error.code if isinstance(error, ImageError) else "not_scored"
            line["error"] = {"code": code, "detail": str(error)}
            print(f"{', '.join(map(str, case))}: {error}", file=sys.stderr)
            status = 2
        else:
            if note:
                print(answer.note, flush=True)
                continue
        print(json.dumps(line, sort_keys=True, allow_nan=False), flush=True)
    return status


def _read(number: int, image: Path, max_bytes: int) -> bytes:
    """Read at most enough to show that a file is too long: it may be a film."""
    try:
        with image.open("rb") as stream:
            return stream.read(max_bytes + 1)
    except OSError as error:
        sentence = f"Photograph {number}: cannot be read ({error.strerror})."
        raise ImageError("image_not_readable", sentence, index=number - 1) from None
