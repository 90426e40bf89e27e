"""Initial weights from files instead of timm's hub. Imports the configuration, its YAML and the errors."""

from __future__ import annotations

from pathlib import Path

from lesion_triage import strict_yaml
from lesion_triage.config import Config
from lesion_triage.errors import ConfigError


def overrides(path: Path, config: Config) -> list[str]:
    """Overrides that make every network take its initial weights from a file instead of the hub.

    Args:
        path: a file; or a folder that holds one file for each backbone, named ``BACKBONE.*safetensors``.
        config: of the training run.

    Returns:
        ``section.key=value``, to be given to ``config_file.load``.

    Raises:
        ConfigError: one file for several backbones, or a folder that lacks the file of one or has two.
    """
    path = path.resolve()
    main_weights = _weights_for(config.model.backbone, config.model.weights, path, config)
    ensemble = [
        {**one.model_dump(mode="json"), "weights": _weights_for(one.backbone, one.weights, path, config)}
        for one in config.ensemble.backbones
    ]
    settings = {"model.weights": main_weights} | ({"ensemble.backbones": ensemble} if ensemble else {})
    return [f"{key}={strict_yaml.dump_line(value)}" for key, value in settings.items()]


def _weights_for(backbone: str, weights: str, path: Path, config: Config) -> str:
    if weights != "hub":
        return weights
    if path.is_dir():
        candidates = sorted(path.glob(f"{backbone}.*safetensors"))
        if len(candidates) != 1:
            raise ConfigError(
                f"--weights {path}: {len(candidates)} files are named {backbone}.*safetensors; expected one."
            )
        return str(candidates[0])
    if config.ensemble.backbones:
        raise ConfigError(
            f"--weights {path}: '{config.name}' trains several backbones; give a folder that holds a file "
            "for each, named BACKBONE.*safetensors."
        )
    return str(path)
