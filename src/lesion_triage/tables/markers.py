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

Number = Callable[[str], str]
"""From a marker's content, such as ``ham10000-baseline:mean.all.auroc .3f``, to its text."""
Table = Callable[[str, str], str]
"""From a table's name and arguments to Markdown that ends with a newline."""

_FENCE = re.compile(r"^(```|~~~).*?^\1[^\n]*$", re.MULTILINE | re.DOTALL)
_INLINE = re.compile(r"(<!-- = (?P<what>[^\n]*?) -->)(?P<shown>[^\n]*?)(?P<end><!-- / -->)")
_FILL = re.compile(r"(<!-- fill\n(?P<text>.*?)\n-->\n)(?P<shown>.*?)(?P<end><!-- /fill -->)", re.DOTALL)
_TABLE = re.compile(
    r"(<!-- table (?P<name>\S+)(?P<rest>[^\n]*?) -->\n)(?P<shown>.*?)(?P<end><!-- /table -->)", re.DOTALL
)
_BEGINNINGS = re.compile(r"<!-- (=|fill\n|table )")
_PLACE = re.compile(r"\{([^{}\n]+)\}")


def filled(page: str, number: Number, table: Table, where: str) -> str:
    """The page with every marked place filled in again; the rest is unchanged.

    Args:
        page: Markdown.
        number: text of one number.
        table: text of one table.
        where: how an error begins.

    Raises:
        DataError: a marker that does not end, or that names something not recorded.
    """
    parts, at = [], 0
    for fence in _FENCE.finditer(page):  # a page may explain the markers
        parts += [_filled(page[at : fence.start()], number, table, where), fence.group()]
        at = fence.end()
    return "".join([*parts, _filled(page[at:], number, table, where)])


def _filled(text: str, number: Number, table: Table, where: str) -> str:
    begun = len(_BEGINNINGS.findall(text))
    whole = sum(len(pattern.findall(text)) for pattern in (_INLINE, _FILL, _TABLE))
    if begun != whole:
        raise DataError(
            f"{where}: {begun} markers begin and {whole} are complete; end each with <!-- / -->, <!-- /fill "
            "--> or <!-- /table -->."
        )
    try:
        text = _FILL.sub(
            lambda found: (
                f"{found[1]}\n{_PLACE.sub(lambda place: number(place[1]), found['text'])}\n\n{found['end']}"
            ),
            text,
        )
        text = _TABLE.sub(
            lambda found: f"{found[1]}\n{table(found['name'], found['rest'].strip())}\n{found['end']}", text
        )
        return _INLINE.sub(lambda found: f"{found[1]}{number(found['what'])}{found['end']}", text)
    except DataError as error:
        raise DataError(f"{where}: {error}") from None
