"""Initial weights from files instead of timm's hub. Imports the configuration, its YAML and the errors."""

from __future__ import annotations

from pathlib import Path

from lesion_triage import strict_yaml
from lesion_triage.config import Config
from lesion_triage.errors import ConfigError


def overrides(place: Path, config: Config) -> list[str]:
    """Overrides that make every network take its initial weights from a file instead of the hub.

    Args:
        place: a file; or a folder that holds one file for each backbone, named ``BACKBONE.*safetensors``.
        config: of the training run.

    Returns:
        ``section.key=value``, to be given to ``config_file.load``.

    Raises:
        ConfigError: one file for several backbones, or a folder that lacks the file of one or has two.
    """
    place = place.resolve()
    own = _of(config.model.backbone, config.model.weights, place, config)
    others = [
        {**one.model_dump(mode="json"), "weights": _of(one.backbone, one.weights, place, config)}
        for one in config.ensemble.backbones
    ]
    given = {"model.weights": own} | ({"ensemble.backbones": others} if others else {})
    return [f"{key}={strict_yaml.written(value)}" for key, value in given.items()]


def _of(backbone: str, weights: str, place: Path, config: Config) -> str:
    if weights != "hub":
        return weights
    if place.is_dir():
        found = sorted(place.glob(f"{backbone}.*safetensors"))
        if len(found) != 1:
            raise ConfigError(
                f"--weights {place}: {len(found)} files are named {backbone}.*safetensors; expected one."
            )
        return str(found[0])
    if config.ensemble.backbones:
        raise ConfigError(
            f"--weights {place}: '{config.name}' trains several backbones; give a folder that holds a file "
            "for each, named BACKBONE.*safetensors."
        )
    return str(place)
