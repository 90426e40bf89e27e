"""The model card in the bundle: what this model is, what it is not, and what it was made from."""

from __future__ import annotations

from lesion_triage.bundle.certificate import Certificate
from lesion_triage.bundle.messages import english_catalogue
from lesion_triage.bundle.schema import ModelFacts
from lesion_triage.calibrate.wording import format_percent, what_refers
from lesion_triage.config import Config
from lesion_triage.data.manifest import Manifest

_CARD = """\
# {name}

{warning}{notice}

## What it is for

Ordering the reading queue of store-and-forward teledermatology, and flagging cases to be examined in
person. A clinician reads every case, whatever the score.

## What it is not for

Deciding that a person need not be seen; replacing a clinician's reading; screening without one; pictures of
a kind it was not trained on (another camera, another part of the skin's range, no lesion in view).

## How it was made

| | |
|---|---|
| backbone | {backbone} ({parameters:,} parameters), {size} px, {views} |
| first weights | {weights} |
| training | {training}; config {config} |
| data | {source}: {images} photographs of {cases} cases |
| split | by {unit}; manifest {manifest_sha256}, splits {splits_sha256} |

## Threshold

{refers} On {positives} positive {unit}s that had no part in training,
{misses} were missed ({allowed} allowed): with {confidence}% confidence the sensitivity for future {unit}s of
the same kind is at least {target}%. Certificate {certificate_id}.

Assumptions:

{assumptions}

## Licences and citations of the data

{citations}
"""

_SYNTHETIC = (
    "**Made from drawn pictures. Its numbers say nothing about people. Never use it on patients.**\n\n"
)


def model_card(config: Config, manifest: Manifest, facts: ModelFacts, certificate: Certificate) -> str:
    """The card as Markdown."""
    made, dealt = certificate.manifest_sha256 or "", certificate.splits_sha256 or ""
    return _CARD.format(
        name=config.name,
        warning=_SYNTHETIC if manifest.synthetic else "",
        notice=english_catalogue().notice,
        backbone=facts.backbone,
        parameters=facts.parameters,
        size=config.pixels.size_px,
        views=_views(facts),
        weights=_initial_weights(config),
        training=_training(config),
        config=config.identity_sha256()[:16],
        source=manifest.source,
        images=len(manifest.records),
        cases=len({record.case_id for record in manifest.records}),
        unit=certificate.unit,
        manifest_sha256=made[:16],
        splits_sha256=dealt[:16],
        refers=what_refers(certificate),
        positives=certificate.positives,
        misses=certificate.misses_seen,
        allowed=certificate.misses_allowed,
        confidence=format_percent(certificate.confidence),
        target=format_percent(certificate.target_sensitivity),
        certificate_id=certificate.certificate_id(),
        assumptions="\n".join(f"- {assumption}" for assumption in certificate.assumptions),
        citations="\n".join(f"- {citation}" for citation in manifest.citation) or "- none stated",
    )


def _views(facts: ModelFacts) -> str:
    cropped = f", half of them of the middle {facts.center_crop:g}" if facts.center_crop < 1 else ""
    return f"{facts.views} view(s){cropped}"


def _initial_weights(config: Config) -> str:
    named = {"hub": "timm's published weights", "none": "random"}
    from_where = (one.model.weights for one in config.members() or (config,))
    return " and ".join(dict.fromkeys(named.get(one, "a local safetensors file") for one in from_where))


def _training(config: Config) -> str:
    """The training runs in the graph, by their seeds."""
    once = f"{config.train.epochs} epochs, seed {config.seed}"
    members = config.members()
    if not members:
        return once
    seeds = ", ".join(str(config.seed + number) for number in range(config.ensemble.members))
    backbones = list(dict.fromkeys(member.model.backbone for member in members))
    alike = f"seeds {seeds}" if len(backbones) == 1 else f"seeds {seeds} of each of {', '.join(backbones)}"
    if config.ensemble.combine == "average":
        return f"mean logit of {len(members)} networks, {config.train.epochs} epochs each, {alike}"
    return (
        f"{once}, beside the labels taught by {len(members)} networks of {alike}, "
        f"who have {format_percent(config.ensemble.teacher_share)}% of the loss"
    )
