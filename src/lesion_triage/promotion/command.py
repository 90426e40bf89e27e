"""``lesion-triage promote``: point an alias of the model registry at a bundle.

Imports cards, tracking and the rest of this room.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass, replace
from pathlib import Path

from lesion_triage.bundle.document import timestamp
from lesion_triage.cards.change import Change, compare
from lesion_triage.cards.change_command import write
from lesion_triage.cards.change_page import page
from lesion_triage.cards.dossier import CONFIG
from lesion_triage.cards.subject import Subject, open_record, open_subject
from lesion_triage.errors import PromotionError
from lesion_triage.promotion import gates, record
from lesion_triage.tracking import RUN_ID_FILE
from lesion_triage.tracking.registry import Registry, Version
from lesion_triage.tracking.tracker import local_artifacts, local_uri

ALIASES = ("champion", "challenger")
MODEL = "lesion-triage"
RECORDS = "promotions"


@dataclass(frozen=True)
class Request:
    """What is requested, by whom and why."""

    alias: str
    by: str
    why: str
    model: str
    accept_regression: str


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``lesion-triage promote``."""
    parser.add_argument("bundle", type=Path, metavar="RUN_OR_BUNDLE", help="folder of a run, or of a bundle")
    parser.add_argument("--to", required=True, choices=ALIASES, dest="alias", help="the alias")
    parser.add_argument("--by", required=True, metavar="NAME", help="who promotes it")
    parser.add_argument("--why", required=True, metavar="TEXT", help="the reason")
    parser.add_argument(
        "--run",
        type=Path,
        metavar="RUN",
        help="for a recertified bundle: the run that made its graph",
    )
    parser.add_argument("--uri", metavar="URI", help="tracking server or database (the run's own)")
    parser.add_argument("--model", default=MODEL, metavar="NAME", help="name in the registry (%(default)s)")
    parser.add_argument(
        "--trusted", type=Path, metavar="KEYS", help="require a signature by one of these public keys"
    )
    parser.add_argument("--synthetic", action="store_true", help="allow a bundle made from drawn pictures")
    parser.add_argument(
        "--accept-regression",
        default="",
        metavar="WHY",
        help="promote it although the rule calls it a regression",
    )


def act(arguments: argparse.Namespace) -> int:
    """Check, compare, register, record, and move the alias."""
    for name in ("by", "why"):
        if not getattr(arguments, name).strip():
            raise PromotionError(f"--{name} is empty; say who promotes the bundle, and why.")
    subject = open_subject(arguments.bundle, arguments.run)
    passed = gates.require(subject, allow_synthetic=arguments.synthetic, trusted=arguments.trusted)
    for line in passed:
        print(f"  {line}")
    asked = Request(
        arguments.alias, arguments.by, arguments.why, arguments.model, arguments.accept_regression.strip()
    )
    promote(subject, registry_of(subject, arguments.uri), asked)
    return 0


def registry_of(subject: Subject, uri: str | None) -> Registry:
    """The registry at ``uri``; None: the one of the run."""
    run = subject.dossier.folder
    uri = uri or subject.dossier.get(CONFIG, "tracking.uri")
    return Registry(uri) if uri else Registry(local_uri(run), local_artifacts(run))


def promote(subject: Subject, registry: Registry, asked: Request) -> Version:
    """Register a bundle that passed the gates, unless it is registered already, and point the alias at it.

    Args:
        subject: the bundle and its evidence; the record goes into its run.
        registry: where it is registered.
        asked: by whom, why and to which alias.

    Raises:
        PromotionError: it is to be champion, regresses against the present one, and that was not accepted; or
            the run's record was altered or cannot be written.
        RegistryError: the registry fails or refuses.
    """
    run, bundle = subject.dossier.folder, subject.bundle
    now = registry.find_by_alias(asked.model, asked.alias)
    if now is not None and now.bundle_sha256 == bundle.sha256:
        print(f"{asked.model} version {now.number} is already {asked.alias}.")
        return now
    record.read(run)  # an altered record is an error before anything is changed
    change = _against_champion(subject, registry, asked)
    if change is not None:
        print(page(change, asked.accept_regression))
        _refuse_regression(change, asked)
    version = registry.find_by_bundle(asked.model, bundle.sha256) or _register(subject, registry, asked)
    entry = record.Entry(
        event="asked",
        at=timestamp(),
        by=asked.by,
        why=asked.why,
        alias=asked.alias,
        model=asked.model,
        version=version.number,
        bundle_sha256=bundle.sha256,
        certificate_id=bundle.certificate.certificate_id(),
        replaced=now.bundle_sha256 if now else "",
        accepted_regression=asked.accept_regression if change and change.regressions else "",
    )
    record.append(run, entry)
    if change is not None:
        number = len(record.read(run))
        write(
            change, run / RECORDS, entry.accepted_regression, f"{number:03d}-{asked.alias}-v{version.number}"
        )
    registry.set_alias(version, asked.alias, _tags(entry), _description(version, entry))
    record.append(run, replace(entry, event="done", at=timestamp()))
    print(f"{asked.model} version {version.number} is {asked.alias} now: models:/{asked.model}@{asked.alias}")
    return version


def _against_champion(subject: Subject, registry: Registry, asked: Request) -> Change | None:
    champion = registry.find_by_alias(asked.model, "champion")
    if champion is None or champion.bundle_sha256 == subject.bundle.sha256:
        return None
    with registry.downloaded(champion) as folder:
        return compare(open_record(folder), subject, asked.by, asked.why)


def _refuse_regression(change: Change, asked: Request) -> None:
    """Refuse an unaccepted regression of a champion; a challenger is evaluated first, so it may be worse."""
    if asked.alias == "champion" and change.regressions and not asked.accept_regression:
        found = [line.text.rstrip(".") for line in change.regressions]
        rest = f", and {len(found) - 3} more" if len(found) > 3 else ""
        raise PromotionError(
            f"'{change.new.name}' regresses against the champion: {'; '.join(found[:3])}{rest}. The rule "
            "and the whole record are printed above; --accept-regression WHY promotes it nevertheless."
        )


def _register(subject: Subject, registry: Registry, asked: Request) -> Version:
    note = subject.dossier.folder / RUN_ID_FILE
    run_id = note.read_text(encoding="utf-8").strip() if note.is_file() else None
    experiment = subject.dossier.get(CONFIG, "tracking.experiment", MODEL)
    return registry.register(asked.model, subject.bundle, subject.record(), experiment, run_id)


def _tags(entry: record.Entry) -> dict[str, str]:
    told = {
        "by": entry.by,
        "why": entry.why,
        "at": entry.at,
        "replaced": entry.replaced,
        "accepted_regression": entry.accepted_regression,
    }
    return {f"promoted.{entry.alias}.{name}": value for name, value in told.items() if value}


def _description(version: Version, entry: record.Entry) -> str:
    accepted = f" Regression accepted: {entry.accepted_regression}" if entry.accepted_regression else ""
    line = f"{entry.at} {entry.alias}, by {entry.by}: {entry.why}{accepted}"
    return "\n".join(part for part in (version.description, line) if part)
