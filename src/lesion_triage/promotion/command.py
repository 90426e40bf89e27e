"""``lesion-triage promote``: point an alias of the model registry at a bundle.

Imports cards, tracking and the rest of this package.
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
from lesion_triage.cards.evidence import BundleEvidence, open_evidence, open_record
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


def main(arguments: argparse.Namespace) -> int:
    """Check, compare, register, record, and move the alias."""
    for name in ("by", "why"):
        if not getattr(arguments, name).strip():
            raise PromotionError(f"--{name} is empty; say who promotes the bundle, and why.")
    evidence = open_evidence(arguments.bundle, arguments.run)
    for finding in gates.check(evidence, allow_synthetic=arguments.synthetic, trusted=arguments.trusted):
        print(f"  {finding}")
    request = Request(
        arguments.alias, arguments.by, arguments.why, arguments.model, arguments.accept_regression.strip()
    )
    promote(evidence, open_registry(evidence, arguments.uri), request)
    return 0


def open_registry(evidence: BundleEvidence, uri: str | None) -> Registry:
    """The registry at ``uri``; None: the one of the run."""
    run = evidence.dossier.folder
    uri = uri or evidence.dossier.get(CONFIG, "tracking.uri")
    return Registry(uri) if uri else Registry(local_uri(run), local_artifacts(run))


def promote(evidence: BundleEvidence, registry: Registry, request: Request) -> Version:
    """Register a bundle that passed the gates, unless it is registered already, and point the alias at it.

    Args:
        evidence: the bundle and its evidence; the record goes into its run.
        registry: where it is registered.
        request: by whom, why and to which alias.

    Raises:
        PromotionError: it is to be champion, regresses against the present one, and that was not accepted; or
            the run's record was altered or cannot be written.
        RegistryError: the registry fails or refuses.
    """
    run, bundle = evidence.dossier.folder, evidence.bundle
    current = registry.find_by_alias(request.model, request.alias)
    if current is not None and current.bundle_sha256 == bundle.sha256:
        print(f"{request.model} version {current.number} is already {request.alias}.")
        return current
    record.read(run)  # an altered record is an error before anything is changed
    change = _compare_with_champion(evidence, registry, request)
    if change is not None:
        print(page(change, request.accept_regression))
        _refuse_regression(change, request)
    version = registry.find_by_bundle(request.model, bundle.sha256) or _register(evidence, registry, request)
    entry = record.Entry(
        event="asked",
        at=timestamp(),
        by=request.by,
        why=request.why,
        alias=request.alias,
        model=request.model,
        version=version.number,
        bundle_sha256=bundle.sha256,
        certificate_id=bundle.certificate.certificate_id(),
        replaced=current.bundle_sha256 if current else "",
        accepted_regression=request.accept_regression if change and change.regressions else "",
    )
    record.append(run, entry)
    if change is not None:
        name = f"{len(record.read(run)):03d}-{request.alias}-v{version.number}"
        write(change, run / RECORDS, entry.accepted_regression, name)
    registry.set_alias(version, request.alias, _tags(entry), _description(version, entry))
    record.append(run, replace(entry, event="done", at=timestamp()))
    address = f"models:/{request.model}@{request.alias}"
    print(f"{request.model} version {version.number} is {request.alias} now: {address}")
    return version


def _compare_with_champion(evidence: BundleEvidence, registry: Registry, request: Request) -> Change | None:
    champion = registry.find_by_alias(request.model, "champion")
    if champion is None or champion.bundle_sha256 == evidence.bundle.sha256:
        return None
    with registry.downloaded(champion) as folder:
        return compare(open_record(folder), evidence, request.by, request.why)


def _refuse_regression(change: Change, request: Request) -> None:
    """Refuse an unaccepted regression of a champion; a challenger is evaluated first, so it may be worse."""
    if request.alias == "champion" and change.regressions and not request.accept_regression:
        found = [line.text.rstrip(".") for line in change.regressions]
        rest = f", and {len(found) - 3} more" if len(found) > 3 else ""
        raise PromotionError(
            f"'{change.new.name}' regresses against the champion: {'; '.join(found[:3])}{rest}. The rule "
            "and the whole record are printed above; --accept-regression WHY promotes it nevertheless."
        )


def _register(evidence: BundleEvidence, registry: Registry, request: Request) -> Version:
    run_id_file = evidence.dossier.folder / RUN_ID_FILE
    run_id = run_id_file.read_text(encoding="utf-8").strip() if run_id_file.is_file() else None
    experiment = evidence.dossier.get(CONFIG, "tracking.experiment", MODEL)
    return registry.register(request.model, evidence.bundle, evidence.record(), experiment, run_id)


def _tags(entry: record.Entry) -> dict[str, str]:
    tags = {
        "by": entry.by,
        "why": entry.why,
        "at": entry.at,
        "replaced": entry.replaced,
        "accepted_regression": entry.accepted_regression,
    }
    return {f"promoted.{entry.alias}.{name}": value for name, value in tags.items() if value}


def _description(version: Version, entry: record.Entry) -> str:
    accepted = f" Regression accepted: {entry.accepted_regression}" if entry.accepted_regression else ""
    line = f"{entry.at} {entry.alias}, by {entry.by}: {entry.why}{accepted}"
    return "\n".join(part for part in (version.description, line) if part)
