"""Strict YAML: no duplicate keys, no code, 3e-4 is a number and 24:00 is none. Imports the exception tree."""

from __future__ import annotations

import math
import re
from collections.abc import Hashable
from typing import Any

import yaml

from lesion_triage.errors import ConfigError

_MAX_QUOTED_LENGTH = 40
"""Characters of a value that an error quotes."""

_IN_ANOTHER_BASE = re.compile(r"[-+]?(0[0-7_]*[1-7][0-7_]*|[0-9].*:.*)")
"""Numbers that YAML 1.1 reads to base 8 or 60: 010 is 8, and 24:00 is 1440."""


class _StrictLoader(yaml.SafeLoader):
    """SafeLoader that refuses duplicate keys, merge keys and base 60, and reads 3e-4 as the number it is."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value if isinstance(node, yaml.MappingNode) else ():
            line = key_node.start_mark.line + 1
            if key_node.tag == "tag:yaml.org,2002:merge":
                raise ConfigError(f"line {line}: merge keys ('<<') are not supported; write the keys out.")
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, Hashable):
                raise ConfigError(f"line {line}: expected a word as a key, found a list or a mapping.")
            if key in seen:
                raise ConfigError(f"key '{key}' appears twice, the second time in line {line}; keep one.")
            seen.add(key)
        return super().construct_mapping(node, deep)

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            found = super().construct_object(node, deep)
        except (ValueError, LookupError, TypeError, AttributeError):  # escape from PyYAML
            if not isinstance(node, yaml.ScalarNode):
                raise
            text, kind = node.value, node.tag.rpartition(":")[2]
            text = text if len(text) <= _MAX_QUOTED_LENGTH else f"{text[:_MAX_QUOTED_LENGTH]}…"
            line = node.start_mark.line + 1
            raise ConfigError(f"line {line}: {text!r} cannot be read as a value of type {kind}.") from None
        if isinstance(found, int | float) and _IN_ANOTHER_BASE.fullmatch(node.value):
            raise ConfigError(
                f"line {node.start_mark.line + 1}: {node.value!r} would be read as {found}; write a decimal "
                "number without leading zeros, or put it in quotes if it is a word."
            )
        return found


# PyYAML follows YAML 1.1, where 3e-4 is a string; people mean the number.
_StrictLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)


def parse(text: str, where: str) -> Any:
    """Read a document.

    Args:
        text: YAML.
        where: how an error begins.

    Raises:
        ConfigError: not valid YAML, a value that is not of its type, or a key that is a duplicate, not text
            or a merge key.
    """
    try:
        return yaml.load(text, Loader=_StrictLoader)  # noqa: S506 - a SafeLoader
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from None
    except RecursionError:
        raise ConfigError(f"{where}: nested too deeply to be read.") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{where}: not valid YAML ({' '.join(str(error).split())}).") from None


def dump_line(value: Any) -> str:
    """One line of YAML that ``parse`` reads as this value; beyond U+FFFF, JSON would not do.

    Args:
        value: text, numbers, True, False and None, and lists and mappings of them.
    """
    line: str = yaml.safe_dump(
        value, default_style='"', default_flow_style=True, width=math.inf, sort_keys=False
    )
    return line.rstrip("\n")
