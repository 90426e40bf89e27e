"""Answers of a run to checklist items on its model and policy. Imports the answers on its data."""

from __future__ import annotations

from functools import partial
from typing import Any

from lesion_triage.cards.answers_data import sizes
from lesion_triage.cards.checklist import Answer
from lesion_triage.cards.dossier import (
    AUDIT_MODEL,
    CARD,
    CERTIFICATE,
    CONFIG,
    CURVE,
    HEADER,
    POLICY,
    Dossier,
    Pointer,
)

_PURPOSE = Pointer(CARD, "What it is for")
_NOT = Pointer(CARD, "What it is not for")


def purpose(dossier: Dossier) -> Answer:
    """What it is for."""
    return Answer(
        "Ordering the reading queue of store-and-forward teledermatology and flagging cases to be "
        "examined in person. Users are clinicians trained in dermatology, who read every case whatever "
        "the score, and the platform that sends photographs.",
        (_PURPOSE, _NOT),
        "existing pathways and models at the place of use.",
    )


def users(dossier: Dossier) -> Answer:
    """Who uses it."""
    return Answer(
        "Clinicians trained in dermatology who read the queue. They need not prepare pictures or choose a "
        "threshold; they read every case and ask for a better photograph where one is refused.",
        (_PURPOSE, _NOT),
    )


def use_cases(dossier: Dossier) -> Answer:
    """What it is for and what it is not for, in the words of dermatology."""
    return Answer(
        "Photographs of one lesion, of the kinds it was trained on, in a reading queue. Its one output is "
        "whether an in-person visit is needed; it names no condition. Not for screening without a "
        "clinician, nor to decide that a person need not be seen.",
        (_PURPOSE, _NOT),
    )


def impact(dossier: Dossier) -> Answer:
    """Its effect on the cases."""
    return Answer(
        "It changes the order in which cases are read and proposes in-person visits. A case below the "
        "threshold waits longer; up to the share that the certificate allows of those who need a visit "
        "are among them.",
        (_PURPOSE, _NOT, Pointer(CERTIFICATE, "target_sensitivity")),
        "effects on a team and on patients, which a study at the place of use would have to measure.",
    )


def predictors_chosen(dossier: Dossier) -> Answer:
    """As ``predictors``, for an item that also asks why they were chosen."""
    known = predictors(dossier)
    return Answer(known.text, known.evidence, "why these, and which others were considered.")


def predictors_measured(dossier: Dossier) -> Answer:
    """As ``predictors``, for an item that also asks how and when they are measured."""
    known = predictors(dossier)
    return Answer(known.text, known.evidence, "how and when photographs and answers were taken.")


def predictors(dossier: Dossier) -> Answer:
    """The inputs of the model."""
    counted = dossier.at(CERTIFICATE, "red_flags_counted")
    asked = ", ".join(one["by"] for one in dossier.get(POLICY, "groupings", ()))
    by_group = f" The {asked} in it decides which threshold a case has, or that it goes up." if asked else ""
    return Answer(
        "The photographs of one lesion, 1 to 16, and nothing else make the score. A short structured "
        "history may raise a case by red flags, which never lower one; in the certificate red flags "
        f"{'count' if counted else 'do not count'}.{by_group}",
        (
            Pointer(HEADER, "pixels"),
            Pointer(CERTIFICATE, "red_flags_counted"),
            Pointer(POLICY, "aggregation"),
        ),
    )


def blinded(dossier: Dossier) -> Answer:
    """What the index test was blinded to."""
    return Answer(
        "The score is computed by the sealed graph from the photographs alone: neither history nor "
        "reference standard enters it.",
        (Pointer(HEADER, "files"), Pointer(CERTIFICATE, "red_flags_counted")),
    )


def model(dossier: Dossier) -> Answer:
    """Network and training."""
    train = partial(_of_training, dossier)
    return Answer(
        f"Network {dossier.at(HEADER, 'model.backbone')} of timm, "
        f"{dossier.at(HEADER, 'model.parameters'):,} parameters, from {_first_weights(dossier)}, with one "
        f"logit for each photograph. AdamW, {train('epochs')} epochs, batch {train('batch_size')}, peak "
        f"learning rate {train('learning_rate')}, schedule {train('schedule')}, loss {train('loss')}, weight "
        f"decay {train('weight_decay')}, augmentation {train('augmentation')}, seed "
        f"{dossier.at(CONFIG, 'seed')}; every setting is in the frozen configuration. A calibrator of "
        "validation cases turns the logit into a score; a case takes the "
        f"{dossier.at(POLICY, 'aggregation')} over its photographs.",
        (
            Pointer(CONFIG, "model"),
            Pointer(CONFIG, "train"),
            Pointer(HEADER, "model"),
            Pointer(POLICY, "calibrator"),
        ),
        "why this network and these settings, unless a sweep beside the run says so.",
    )


def developed(dossier: Dossier) -> Answer:
    """As ``model``, for an item that also asks for the sizes of the splits."""
    known, splits = model(dossier), sizes(dossier)
    return Answer(f"{known.text} {splits.text}", (*known.evidence, *splits.evidence), known.missing)


def _of_training(dossier: Dossier, name: str) -> Any:
    return dossier.at(CONFIG, f"train.{name}")


def weights(dossier: Dossier) -> Answer:
    """Initial weights."""
    text = _first_weights(dossier)
    return Answer(
        f"{text[0].upper()}{text[1:]}. Seed {dossier.at(CONFIG, 'seed')}.",
        (Pointer(CONFIG, "model.weights"), Pointer(CONFIG, "seed")),
    )


def _first_weights(dossier: Dossier) -> str:
    """Of every backbone, once each."""
    others = dossier.get(CONFIG, "ensemble.backbones", ())  # older runs have no such key
    known = {"hub": "timm's published weights (random head)", "none": "random weights"}
    stated = (dossier.at(CONFIG, "model.weights"), *(one.get("weights", "hub") for one in others))
    return " and ".join(dict.fromkeys(known.get(str(one), "weights of a local file") for one in stated))


def training(dossier: Dossier) -> Answer:
    """Hyper-parameters and learning curve."""
    train, curve = partial(_of_training, dossier), dossier.at(CURVE)
    return Answer(
        f"{train('epochs')} epochs of AdamW, batch {train('batch_size')}, peak learning rate "
        f"{train('learning_rate')}, warm-up {train('warmup_epochs')} epochs, schedule {train('schedule')}, "
        f"weight decay {train('weight_decay')}, label smoothing {train('label_smoothing')}, augmentation "
        f"{train('augmentation')}, moving average of weights {train('ema_decay')}. Loss and validation "
        f"AUROC of {len(curve)} epochs are recorded.",
        (Pointer(CONFIG, "train"), Pointer(CURVE)),
    )


def selection(dossier: Dossier) -> Answer:
    """How the final weights were chosen."""
    return Answer(
        "The weights of the last epoch: no epoch is chosen by a result.",
        (Pointer(CONFIG, "train.epochs"), Pointer(CURVE)),
        "how the configuration was chosen, unless a sweep beside the run says so.",
    )


def ensemble(dossier: Dossier) -> Answer:
    """Whether the model is an ensemble, and of what."""
    settings, each = dossier.at(CONFIG, "ensemble"), dossier.at(CONFIG, "ensemble.members")
    others = [one["backbone"] for one in settings.get("backbones", ())]  # older runs have no such key
    if others:
        backbones = ", ".join((dossier.at(CONFIG, "model.backbone"), *others))
        text = f"{each * (1 + len(others))} networks, {each} of each of {backbones}; {settings['combine']}."
    elif each > 1:
        text = f"{each} networks of different seeds, {settings['combine']}."
    else:
        text = "No ensemble: one network."
    return Answer(
        f"{text} {views(dossier)} of each picture.",
        (Pointer(CONFIG, "ensemble"), Pointer(HEADER, "model.views")),
    )


def views(dossier: Dossier) -> str:
    """How many views of a picture the graph averages over, and what half of them show if not the whole."""
    facts = dossier.at(HEADER, "model")
    crop = facts.get("center_crop")  # left out where there is none
    return f"{facts['views']} view(s)" + (f", half of them of the middle {crop:g}" if crop else "")


def software(dossier: Dossier) -> Answer:
    """The software that made the bundle."""
    return Answer(
        f"{dossier.at(HEADER, 'made_with')}: PyTorch and timm train, onnxruntime computes every score.",
        (Pointer(HEADER, "made_with"),),
        "versions of libraries; the MLflow run has them in environment.txt if tracking was on.",
    )


def software_and_devices(dossier: Dossier) -> Answer:
    """As ``software``, for an item that also asks for the devices."""
    known = software(dossier)
    return Answer(known.text, known.evidence, f"devices that captured the data; {known.missing}")


def imbalance(dossier: Dossier) -> Answer:
    """How class imbalance was handled."""
    loss = dossier.at(CONFIG, "train.loss")
    text = {
        "bce": "None: the loss weighs every photograph alike.",
        "balanced": "The loss gives both classes the same weight.",
        "focal": "The focal loss weighs examples that are right already less.",
    }.get(loss, f"Loss {loss}.")
    kind = dossier.at(POLICY, "calibrator.kind")
    return Answer(
        f"{text} The calibrator ({kind}) is fitted after it on validation cases of the data's own "
        "prevalence.",
        (Pointer(CONFIG, "train.loss"), Pointer(POLICY, "calibrator.kind")),
    )


def explained(dossier: Dossier) -> Answer:
    """What the model looks at, measured by covering parts of the picture."""
    place = "findings[code=lesion_covered].summary"
    return Answer(
        f"Parts of the picture are covered and the change is measured. {dossier.at(AUDIT_MODEL, place)}",
        (Pointer(AUDIT_MODEL, place),),
    )


def limits(dossier: Dossier) -> Answer:
    """The certificate's assumptions and the audit's warnings."""
    warned = [one for one in dossier.at(AUDIT_MODEL, "findings") if one["counts_as"] != "pass"]
    remarks = (
        " ".join(one["summary"] for one in warned) or "The audit of data and model found nothing to warn of."
    )
    return Answer(
        " ".join(map(str, dossier.at(CERTIFICATE, "assumptions"))) + f" {remarks}",
        (Pointer(CERTIFICATE, "assumptions"), Pointer(AUDIT_MODEL, "findings")),
        "limits of study and setting.",
    )
