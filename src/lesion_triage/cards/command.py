"""``lesion-triage cards RUN``: model card, dataset card and checklists beside a finished run.

Imports the rest of this package.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from pydantic import BaseModel

from lesion_triage.bundle.document import canonical_json
from lesion_triage.bundle.files import write_atomically
from lesion_triage.cards.checklist import Checklist, Filled, counts, fill, page, tally
from lesion_triage.cards.claim import CLAIM
from lesion_triage.cards.clear_derm import CLEAR_DERM
from lesion_triage.cards.dataset_card import dataset_card
from lesion_triage.cards.dossier import (
    AUDIT,
    AUDIT_MODEL,
    CERTIFICATE,
    CONFIG,
    CURVE,
    HEADER,
    OPENINGS,
    RESULTS,
    Dossier,
    Unknown,
    open_run,
)
from lesion_triage.cards.forms import CardAudit, CardConfig, CardLines, CardResults, CardStage, checked
from lesion_triage.cards.markdown_tables import STAGES, stage_file
from lesion_triage.cards.model_card import model_card
from lesion_triage.cards.stard_ai import STARD_AI
from lesion_triage.cards.tripod_ai import TRIPOD_AI
from lesion_triage.errors import RunError

CHECKLISTS: tuple[Checklist, ...] = (TRIPOD_AI, STARD_AI, CLAIM, CLEAR_DERM)
FOLDER = "cards"
_FORMS: dict[str, type[BaseModel]] = {
    RESULTS: CardResults,
    AUDIT: CardAudit,
    AUDIT_MODEL: CardAudit,
    CONFIG: CardConfig,
    CURVE: CardLines,
    OPENINGS: CardLines,
    **{stage_file(name): CardStage for name in STAGES},
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``lesion-triage cards``."""
    parser.add_argument(
        "run", type=Path, help="folder of a run, such as experiments/runs/demo-20260101-120000"
    )
    parser.add_argument("--out", type=Path, metavar="DIR", help=f"where the cards go (RUN/{FOLDER})")


def main(arguments: argparse.Namespace) -> int:
    """Write the cards and print how much of each checklist is filled. Returns 0."""
    folder = arguments.out or arguments.run / FOLDER
    for name, tally_text in write(open_run(arguments.run), folder).items():
        print(f"{folder / name}{': ' + tally_text if tally_text else ''}")
    return 0


def write(dossier: Dossier, folder: Path) -> dict[str, str]:
    """Write every card, after all of them are made. The same run gives the same bytes.

    Args:
        dossier: of a run with a bundle.
        folder: made if missing; cards of the same name are overwritten.

    Returns:
        Markdown file -> how much of the checklist is filled; empty for a card.

    Raises:
        RunError: a file of the run is damaged, a file that every card needs is missing, or the cards cannot
            be written.
        ManifestError, SplitError: a table of the run was altered.
    """
    for file, form in _FORMS.items():
        checked(dossier, file, form)
    try:
        texts, tallies = _render(dossier)
    except Unknown as error:
        raise RunError(
            f"{dossier.folder}: {error} is missing, and the cards need it; `lesion-triage run` makes what a "
            "run lacks."
        ) from None
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in texts.items():
            write_atomically(folder / name, text.encode())
    except OSError as error:
        raise RunError(f"{folder}: the cards cannot be written there ({error.strerror}).") from None
    return tallies


def _render(dossier: Dossier) -> tuple[dict[str, str], dict[str, str]]:
    """Text of every file, and what to print about each Markdown file."""
    texts = {"model-card.md": model_card(dossier), "dataset-card.md": dataset_card(dossier)}
    tallies = dict.fromkeys(texts, "")
    name, bundle = dossier.at(HEADER, "name"), dossier.bundle_sha256()
    issued = dossier.at(CERTIFICATE, "issued_at")
    heading = f"Run of '{name}', bundle `{bundle[:16]}`, certified {issued}."
    for checklist in CHECKLISTS:
        filled = fill(checklist, dossier)
        texts[f"{checklist.file}.md"] = page(checklist, filled, heading)
        texts[f"{checklist.file}.json"] = canonical_json(_content(checklist, filled))
        tallies[f"{checklist.file}.md"] = tally(filled)
    return texts, tallies


def _content(checklist: Checklist, filled: tuple[Filled, ...]) -> dict[str, object]:
    return {
        "format": 1,
        "name": checklist.name,
        "source": checklist.source,
        "counts": {status.value: number for status, number in counts(filled).items()},
        "items": [
            {
                "number": one.item.number,
                "section": one.item.section,
                "question": one.item.question,
                "status": one.status.value,
                "answer": one.answer.text if one.answer else "",
                "missing": one.answer.missing if one.answer else "",
                "evidence": [str(pointer) for pointer in one.answer.evidence] if one.answer else [],
            }
            for one in filled
        ],
    }
