"""Where a backbone's initial weights come from: timm's hub, a safetensors file, or nowhere (random)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import timm
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from lesion_triage.errors import RetryableTrainingError, TrainingError, hint


def create_backbone(
    name: str, weights: str, size_px: int, drop_rate: float = 0.0, drop_path_rate: float = 0.0
) -> nn.Module:
    """A timm model without its classifier, with the weights asked for.

    Args:
        name: any timm model name.
        weights: ``hub``, ``none`` (random), or the path of a safetensors file. A classifier in the file is
            ignored; every other tensor must fit.
        size_px: side of the pictures, for architectures that are built for one size.
        drop_rate: dropout before the head.
        drop_path_rate: stochastic depth; above 0 only if the architecture has it.

    Raises:
        TrainingError: unknown name, a backbone without pretrained weights, a rate that the architecture does
            not take, a file that is missing or does not fit.
        RetryableTrainingError: unreachable hub.
    """
    if name.split(".", maxsplit=1)[0] not in timm.list_models():
        what = hint(name, timm.list_models(), "timm.list_models() lists all.")
        raise TrainingError(f"timm knows no backbone '{name}'; {what}")
    require_pretrained(name, weights)
    facts = timm.get_pretrained_cfg(name)
    sized: dict[str, Any] = {"img_size": size_px} if facts is not None and facts.fixed_input_size else {}
    rates = {"drop_rate": drop_rate, "drop_path_rate": drop_path_rate}
    try:
        model = _create_model(name, weights == "hub", rates, sized)
    except TrainingError:
        raise
    except Exception as error:
        said = f"backbone '{name}' could not be made ({type(error).__name__}: {error})"
        if weights == "hub" and _can_create(name, rates, sized):
            raise RetryableTrainingError(
                f"{said}; if the hub is out of reach, set model.weights to a safetensors file or to none."
            ) from None
        raise TrainingError(f"{said}; choose another model.backbone or pixels.size_px.") from None
    if weights not in ("hub", "none"):
        _load_weights(model, Path(weights))
    return model


def require_pretrained(name: str, weights: str) -> None:
    """Check that timm knows pretrained weights of this name, if they are to come from the hub. No download.

    Raises:
        TrainingError: there are none.
    """
    if weights == "hub" and not timm.is_model_pretrained(name):
        raise TrainingError(
            f"timm has no pretrained weights of backbone '{name}'; set model.weights to none or to a "
            "safetensors file, or choose another model.backbone."
        )


def _create_model(
    name: str, pretrained: bool, rates: Mapping[str, Any], sized: Mapping[str, Any]
) -> nn.Module:
    """The model with the rates that its architecture takes; a rate of 0 is dropped where it takes none."""
    try:
        model: nn.Module = timm.create_model(name, pretrained=pretrained, num_classes=0, **rates, **sized)
    except TypeError as error:
        refusal = str(error)  # Python's own, or of an architecture that names everything it does not take
        unknown = next(
            (rate for rate in rates if "unexpected keyword argument" in refusal and f"'{rate}'" in refusal),
            None,
        )
        if unknown is None:
            raise
        if rates[unknown]:
            where = f"model.{unknown} to 0"
            if unknown == "drop_path_rate":
                where += ", or of a further backbone its own in ensemble.backbones"
            raise TrainingError(
                f"backbone '{name}' takes no {unknown}, found {rates[unknown]:g}; set {where}."
            ) from None
        others = {rate: value for rate, value in rates.items() if rate != unknown}
        return _create_model(name, pretrained, others, sized)
    return model


def _can_create(name: str, rates: Mapping[str, Any], sized: Mapping[str, Any]) -> bool:
    """Whether only the hub's weights are the problem."""
    try:
        _create_model(name, False, rates, sized)
    except Exception:
        return False
    return True


def _load_weights(model: nn.Module, path: Path) -> None:
    if path.is_dir():
        raise TrainingError(f"{path}: is a folder; expected one safetensors file.")
    try:
        state = load_file(path)
    except (OSError, SafetensorError) as error:
        raise TrainingError(f"{path}: cannot be read as safetensors weights ({error}).") from None
    expected = model.state_dict()
    classifier = set(_classifier_names(model))
    state = {key: value for key, value in state.items() if key in expected or key not in classifier}
    missing = sorted(set(expected) - set(state))
    unknown = sorted(set(state) - set(expected))
    other = sorted(key for key in set(state) & set(expected) if state[key].shape != expected[key].shape)
    if missing or unknown or other:
        wrong = (missing or unknown or other)[0]
        raise TrainingError(
            f"{path}: does not fit the backbone ({len(missing)} tensors missing, {len(unknown)} unknown, "
            f"{len(other)} of another shape; the first is '{wrong}'). Is it the file of another model?"
        )
    model.load_state_dict(state, strict=True)


def _classifier_names(model: nn.Module) -> list[str]:
    names = model.default_cfg.get("classifier", ())  # type: ignore[union-attr, operator]
    names = (names,) if isinstance(names, str) else names
    return [f"{name}.{kind}" for name in names for kind in ("weight", "bias")]
