"""What a marker may name: cells of recorded experiments, numbers of JSON files, tables. Imports reproduce."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path

from lesion_triage import strict_yaml
from lesion_triage.errors import DataError, hint
from lesion_triage.evaluate.summary import summary
from lesion_triage.reproduce import page, records
from lesion_triage.reproduce.cells import Cells, Value, cells_of, flatten
from lesion_triage.reproduce.definition import Experiment, VersionName, load_experiment

EXPERIMENTS = Path("experiments")


class RecordedNumbers:
    """Everything recorded below one folder, read once."""

    def __init__(self, root: Path) -> None:
        """Prepare for a checkout.

        Args:
            root: its top folder.
        """
        self._root = root
        self._cells = cache(self._read_cells)

    def number(self, what: str) -> str:
        """Text of a number: ``NAME:CELL FORMAT``, ``NAME@quick:CELL FORMAT`` or ``FILE:CELL FORMAT``.

        NAME is an experiment, FILE a JSON or YAML file below the root. FORMAT is one of Python's (``.3f``,
        ``,d``), ``%1`` for per cent with one decimal, ``interval.3f`` for a value with its interval, or
        ``range.3f`` for the lowest to the highest seed.

        Raises:
            DataError: no such experiment, file or cell, or a format that does not fit it.
        """
        reference, _, format_spec = what.strip().rpartition(" ")
        source, colon, cell = reference.partition(":")
        if not (colon and cell):
            raise DataError(f"'{what}': expected NAME:CELL FORMAT, such as 'queue:waits.cases ,d'.")
        cells = self._cells(source)
        if format_spec.startswith("interval"):
            value, low, high = (
                _cell_value(cells, source, name) for name in (cell, f"{cell}.low", f"{cell}.high")
            )
            formatted = [
                _format_value(one, format_spec.removeprefix("interval"), what) for one in (value, low, high)
            ]
            return f"{formatted[0]} ({formatted[1]} to {formatted[2]})"
        if format_spec.startswith("range"):
            if not cell.startswith("mean."):
                raise DataError(f"'{what}': a range is of a mean over seeds; its cell begins with mean.")
            ends = (end + cell.removeprefix("mean.") for end in ("lowest.", "highest."))
            formatted = [
                _format_value(_cell_value(cells, source, end), format_spec.removeprefix("range"), what)
                for end in ends
            ]
            return f"{formatted[0]} to {formatted[1]}"
        return _format_value(_cell_value(cells, source, cell), format_spec, what)

    def table(self, name: str, arguments: str) -> str:
        """Markdown of a table, ending with a newline.

        Raises:
            DataError: no such table, or nothing recorded for it.
        """
        tables: dict[str, Callable[[str], str]] = {
            "summary": self._summary,
            "deals": partial(self._summary, deals=True),
            "expected": self._expected,
        }
        if name not in tables:
            raise DataError(f"no table '{name}'; known: {', '.join(sorted(tables))}.")
        return tables[name](arguments)

    def _summary(self, patterns: str, deals: bool = False) -> str:
        paths: list[Path] = []
        for pattern in patterns.split():
            found = sorted(self._root.glob(pattern))
            if not found:
                raise DataError(f"{pattern}: no such file.")
            paths += found
        if not paths:
            raise DataError("a table of results names no file, such as experiments/NAME/seed-*.json.")
        return summary(paths, deals=deals)

    def _expected(self, arguments: str) -> str:
        name, _, version = arguments.partition("@")
        experiment, definition, version_name = self._experiment(name, version)
        record = records.read(experiment, definition, version_name)
        return page.expected_table(definition.versions()[version_name], record)

    def _experiment(self, name: str, version: str) -> tuple[Path, Experiment, VersionName]:
        folder = self._root / EXPERIMENTS / name
        definition = load_experiment(folder)
        found = next((one for one in definition.versions() if one == (version or "full")), None)
        if found is None:
            raise DataError(f"experiment '{name}' has no version '{version}'.")
        return folder, definition, found

    def _read_cells(self, source: str) -> Cells:
        path = self._root / source
        if source.endswith(".yaml"):
            return dict(flatten(strict_yaml.parse(_read_text(path), source)))
        if not source.endswith(".json"):
            name, _, version = source.partition("@")
            experiment, definition, version_name = self._experiment(name, version)
            return records.read(experiment, definition, version_name).cells(
                definition.versions()[version_name]
            )
        try:
            document = json.loads(_read_text(path))
        except ValueError as error:
            raise DataError(f"{source}: cannot be read as JSON ({error}).") from None
        known = {name.removeprefix("it."): value for name, value in cells_of({"it": document}).items()}
        return {**dict(flatten(document)), **known}


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read ({error}).") from None


def _cell_value(cells: Cells, source: str, cell: str) -> Value:
    if cell not in cells:
        raise DataError(f"{source} has no cell '{cell}'; {hint(cell, cells, 'look at its keys.')}")
    return cells[cell]


def _format_value(value: Value, format_spec: str, what: str) -> str:
    try:
        if value is None:
            return "not estimable"
        if format_spec.startswith("%"):
            return f"{100 * float(value):.{int(format_spec[1:] or 0)}f} %"
        return format(value, "" if format_spec == "s" else format_spec)
    except ValueError as error:
        raise DataError(f"'{what}': the format does not fit {value!r} ({error}).") from None
