"""The configuration file of a run, and how it becomes the classes of ``config``.

Imports the configuration, the two readers of YAML and the exception tree.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from lesion_triage import red_flags_file, strict_yaml
from lesion_triage.config import Config
from lesion_triage.errors import ConfigError, hint, without_password

DATA_ROOT_VARIABLE = "LESION_TRIAGE_DATA_ROOT"


def load(
    path: Path, overrides: Sequence[str] = (), data_root: Path | None = None, *, frozen: bool = False
) -> Config:
    """Read a YAML file, apply ``section.key=value`` overrides, and validate every key.

    Args:
        path: the YAML file. A relative ``model.weights`` or ``data.root`` in it is relative to its folder.
        overrides: values are YAML; file names in them are relative to the working directory.
        data_root: takes precedence over ``data.root``, in the file or an override; LESION_TRIAGE_DATA_ROOT
            takes precedence over the file's only.
        frozen: the file is the record of a run, whose ``data.root`` takes precedence over the variable too,
            which may name other data; unless that folder no longer exists.

    Raises:
        ConfigError: file missing, not YAML, an unknown or duplicate key, or a value out of range.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read as a configuration ({error}).") from None
    tree = strict_yaml.parse(text, str(path))
    if not isinstance(tree, dict):
        raise ConfigError(f"{path}: expected a mapping of sections, found {type(tree).__name__}.")
    _resolve_relative_paths(tree, path.parent)
    for override in overrides:
        _apply_override(tree, override)
    root_is_given = any(override.startswith("data.root=") for override in overrides)
    if isinstance(data := tree.get("data"), dict):
        root_is_given = root_is_given or (frozen and Path(str(data.get("root") or "")).is_dir())
        if root := data_root or (None if root_is_given else os.environ.get(DATA_ROOT_VARIABLE)):
            data["root"] = str(root)
    _inline_red_flags(tree, str(path))
    return validated(tree, str(path))


def validated(tree: Mapping[str, Any], where: str) -> Config:
    """The configuration in a tree of plain values.

    Args:
        tree: sections and keys, as in the file.
        where: how an error begins.

    Raises:
        ConfigError: an unknown key, or a value out of range.
    """
    try:
        return Config.model_validate(tree)
    except ValidationError as error:
        raise ConfigError(f"{where}: {error_sentence(error, Config)}") from None


def _resolve_relative_paths(tree: dict[str, Any], folder: Path) -> None:
    """Make the file's own relative paths independent of the working directory."""
    data, calibrate = tree.get("data"), tree.get("calibrate")
    parts = data.get("mixture") if isinstance(data, dict) else None
    for place in (data, *(parts if isinstance(parts, list) else ())):
        if isinstance(place, dict) and isinstance(place.get("root"), str):
            place["root"] = str(folder / place["root"])
    if isinstance(calibrate, dict) and isinstance(calibrate.get("red_flags"), str):
        calibrate["red_flags"] = str(folder / calibrate["red_flags"])
    ensemble = tree.get("ensemble")
    others = ensemble.get("backbones") if isinstance(ensemble, dict) else None
    for network in (tree.get("model"), *(others if isinstance(others, list) else ())):
        if isinstance(network, dict) and network.get("weights") not in (None, "hub", "none"):
            network["weights"] = str(folder / str(network["weights"]))


def _inline_red_flags(tree: dict[str, Any], where: str) -> None:
    """Replace the rules' file name by its content, so that a run's record holds what it was made with."""
    calibrate = tree.get("calibrate")
    if not isinstance(calibrate, dict):
        return
    said = calibrate.get("red_flags")
    if isinstance(said, str):
        calibrate["red_flags"] = red_flags_file.read_red_flags(Path(said))
    elif isinstance(said, dict):
        calibrate["red_flags"] = red_flags_file.validate_red_flags(said, f"{where}: calibrate.red_flags")


def _apply_override(tree: dict[str, Any], override: str) -> None:
    dotted, equals, value = override.partition("=")
    if not equals or not dotted:
        raise ConfigError(f"override '{override}': expected section.key=value.")
    *sections, key = dotted.split(".")
    place = tree
    for section in sections:
        place = place.setdefault(section, {})
        if not isinstance(place, dict):
            raise ConfigError(f"override '{override}': '{section}' is not a section.")
    place[key] = strict_yaml.parse(value, f"override '{override}'")


def error_sentence(error: ValidationError, model: type[BaseModel]) -> str:
    """All of pydantic's errors in one sentence, unknown keys with the nearest known name.

    A mapping is not repeated: it is a whole section, of which one key is missing or two do not go together,
    and it may hold the password of a tracking server.
    """
    parts = []
    for problem in error.errors():
        where = ".".join(str(step) for step in problem["loc"])
        if problem["type"] == "extra_forbidden":
            known = list(_known_keys(model, problem["loc"][:-1]))
            what = hint(str(problem["loc"][-1]), known, f"known here: {', '.join(known)}.")
            parts.append(f"unknown key '{where}'; {what}")
        else:
            message = problem["msg"].removeprefix("Value error, ")
            given = problem["input"]
            found = "" if isinstance(given, Mapping) else f"; found {without_password(repr(given))}"
            parts.append(f"{where or 'configuration'}: {message}{found}.")
    return " ".join(parts)


def _known_keys(model: type[BaseModel], steps: Sequence[int | str]) -> Iterator[str]:
    fields: Mapping[str, Any] = model.model_fields
    for step in steps:
        if isinstance(step, int):  # an index into a list, whose entries the preceding field names
            continue
        annotation = fields[step].annotation
        kinds = (kind for kind in (annotation, *get_args(annotation)) if isinstance(kind, type))
        section = next((kind for kind in kinds if issubclass(kind, BaseModel)), None)
        if section is None:
            return
        fields = section.model_fields
    yield from fields
