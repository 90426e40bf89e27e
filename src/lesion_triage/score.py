"""``lesion-triage score``: photographs in, JSON lines out. Imports the bundle room only."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from lesion_triage.bundle.scorer import Scorer
from lesion_triage.errors import ImageError


def score(bundle: Path, images: Sequence[Path], one_case: bool) -> int:
    """Print one JSON line per case; a picture that cannot be used gets a line with its error.

    Args:
        bundle: folder of a sealed bundle; it must pass its self-test.
        images: photographs.
        one_case: they all show one lesion.

    Returns:
        0, or 2 if any picture could not be used.

    Raises:
        BundleError: the bundle is incomplete or altered.
    """
    scorer = Scorer.open(bundle)
    scorer.self_test()
    status = 0
    for case in [list(images)] if one_case else [[image] for image in images]:
        line: dict[str, object] = {"images": [str(image) for image in case]}
        try:
            line["answer"] = scorer.score([_read(image) for image in case]).model_dump(mode="json")
        except ImageError as error:
            line["error"] = {"code": error.code, "detail": str(error)}
            print(f"{', '.join(map(str, case))}: {error}", file=sys.stderr)
            status = 2
        print(json.dumps(line, sort_keys=True, allow_nan=False), flush=True)
    return status


def _read(image: Path) -> bytes:
    try:
        return image.read_bytes()
    except OSError as error:
        raise ImageError("image_not_readable", f"cannot be read ({error.strerror}).") from None
