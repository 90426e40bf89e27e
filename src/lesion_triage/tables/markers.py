"""Marked places in a Markdown page, filled in again. Imports the exception tree.

Three kinds, all of them comments, which are not displayed:

- in a sentence: ``<!-- = ham10000-baseline:mean.all.auroc .3f -->0.936<!-- / -->``;
- a text with ``{...}`` in it, kept in the comment: ``<!-- fill`` TEXT ``-->`` filled text ``<!-- /fill -->``;
- a whole table, made by a function: ``<!-- table NAME ARGUMENTS -->`` table ``<!-- /table -->``.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from lesion_triage.errors import DataError

FormatNumber = Callable[[str], str]
"""From a marker's content, such as ``ham10000-baseline:mean.all.auroc .3f``, to its text."""
RenderTable = Callable[[str, str], str]
"""From a table's name and arguments to Markdown that ends with a newline."""

_FENCE = re.compile(r"^(```|~~~).*?^\1[^\n]*$", re.MULTILINE | re.DOTALL)
_INLINE = re.compile(r"(<!-- = (?P<what>[^\n]*?) -->)(?P<shown>[^\n]*?)(?P<end><!-- / -->)")
_FILL = re.compile(r"(<!-- fill\n(?P<text>.*?)\n-->\n)(?P<shown>.*?)(?P<end><!-- /fill -->)", re.DOTALL)
_TABLE = re.compile(
    r"(<!-- table (?P<name>\S+)(?P<rest>[^\n]*?) -->\n)(?P<shown>.*?)(?P<end><!-- /table -->)", re.DOTALL
)
_OPENING_MARKER = re.compile(r"<!-- (=|fill\n|table )")
_PLACEHOLDER = re.compile(r"\{([^{}\n]+)\}")


def fill_markers(page: str, number: FormatNumber, table: RenderTable, error_prefix: str) -> str:
    """The page with every marked place filled in again; the rest is unchanged.

    Args:
        page: Markdown.
        number: text of one number.
        table: text of one table.
        error_prefix: how an error begins.

    Raises:
        DataError: a marker that does not end, or that names something not recorded.
    """
    parts, position = [], 0
    for fence in _FENCE.finditer(page):  # a page may explain the markers
        parts += [_fill_text(page[position : fence.start()], number, table, error_prefix), fence.group()]
        position = fence.end()
    return "".join([*parts, _fill_text(page[position:], number, table, error_prefix)])


def _fill_text(text: str, number: FormatNumber, table: RenderTable, error_prefix: str) -> str:
    opened = len(_OPENING_MARKER.findall(text))
    completed = sum(len(pattern.findall(text)) for pattern in (_INLINE, _FILL, _TABLE))
    if opened != completed:
        raise DataError(
            f"{error_prefix}: {opened} markers begin and {completed} are complete; end each with "
            "<!-- / -->, <!-- /fill --> or <!-- /table -->."
        )
    try:
        text = _FILL.sub(
            lambda found: (
                f"{found[1]}\n{_PLACEHOLDER.sub(lambda place: number(place[1]), found['text'])}\n\n"
                f"{found['end']}"
            ),
            text,
        )
        text = _TABLE.sub(
            lambda found: f"{found[1]}\n{table(found['name'], found['rest'].strip())}\n{found['end']}", text
        )
        return _INLINE.sub(lambda found: f"{found[1]}{number(found['what'])}{found['end']}", text)
    except DataError as error:
        raise DataError(f"{error_prefix}: {error}") from None
