"""The catalogue as text: a line and a card for each entry, and the page of both. Imports this package."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from lesion_triage.data.catalogue.entry import Dataset, RemoteFile

COLUMNS = (
    "name",
    "pictures",
    "lesions",
    "patients",
    "download",
    "image type",
    "patient ids",
    "licence",
    "how",
)

_INTRODUCTION = """\
<!-- Written by `lesion-triage datasets --markdown` from src/lesion_triage/data/catalogue/entries. -->
# Datasets

What the readers know, where it comes from, and under which terms. No dataset is in this repository.

<!-- not run, fetch: downloads a dataset -->
<!-- ends with 1 -->
```sh
lesion-triage datasets                # this list
lesion-triage datasets show ham10000  # one card
lesion-triage datasets fetch ham10000 --to DIR --accept-licence CC-BY-NC-4.0 --unpack
lesion-triage datasets check DIR      # what is missing; exit 0 complete, 1 incomplete, 2 unreadable
```

`fetch` downloads datasets that need no registration. It resumes after an interruption, checks size and
checksum where the publisher states them, and records in `FETCHED.json` what it downloaded, from where and
under which licence. Where no checksum is published, it records that of the first download and compares every
later one with it. Where registration is needed, it prints the steps and exits with 2.

*Unknown* means that no published value is known; nothing here is guessed. Sizes with *about* are rounded, or
were reported by a server. A licence is stated as its publisher states it; read it there before you rely on
it, and ask a lawyer what it means for a model. The entries were compiled from the sources that each card
names, mostly from stored copies, and not every address was tried: `fetch` says if one has moved.
"""


def row(entry: Dataset) -> tuple[str, ...]:
    """One dataset as a row, in the order of ``COLUMNS``."""
    return (
        entry.name,
        _count_text(entry.pictures),
        _count_text(entry.lesions),
        _count_text(entry.patients),
        readable_size(entry.bytes),
        ", ".join(entry.image_type),
        "yes" if entry.patient_ids else "no",
        entry.licence.id if entry.licence else "yours",
        access(entry),
    )


def access(entry: Dataset) -> str:
    """How to obtain it, in a word or two."""
    if entry.registration:
        return "register"
    if not entry.fetchable:
        return "yours"
    return "fetch" if entry.pictures_fetched else "fetch (table only)"


def readable_size(number: int | None) -> str:
    """Bytes in readable form, in powers of ten."""
    if number is None:
        return "unknown"
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if number >= factor:
            return f"{number / factor:.1f} {unit}"
    return f"{number} B"


def page(entries: Sequence[Dataset]) -> str:
    """The content of docs/datasets.md."""
    lines = [
        _INTRODUCTION,
        f"| {' | '.join(COLUMNS)} |",
        "|---" * len(COLUMNS) + "|",
        *(f"| [{cells[0]}](#{cells[0]}) | {' | '.join(cells[1:])} |" for cells in map(row, entries)),
        "",
    ]
    return "\n".join(lines) + "\n" + "\n".join(card(entry, level=2) for entry in entries)


def card(entry: Dataset, level: int = 1) -> str:
    """Everything the catalogue says of one dataset."""
    head = "#" * level
    return "\n".join(
        [
            f"{head} {entry.name}",
            "",
            f"**{entry.title}.** {entry.summary}",
            "",
            "| | |",
            "|---|---|",
            *(f"| {name} | {value} |" for name, value in _facts(entry)),
            "",
            f"{head}# {entry.name}: how to get it",
            "",
            *(f"{number}. {step}" for number, step in enumerate(entry.steps, 1)),
            "",
            *_fetching(entry),
            *_files(entry),
            f"{head}# {entry.name}: files on disk",
            "",
            *_layouts(entry),
            "",
            f"{head}# {entry.name}: known traps",
            "",
            *(f"- {trap.text} [{trap.source}]" for trap in entry.traps),
            "",
            f"{head}# {entry.name}: where this comes from",
            "",
            *(f"- {about}: {where}" for about, where in entry.sources.items()),
            "",
        ]
    )


def _facts(entry: Dataset) -> Iterator[tuple[str, str]]:
    yield "pictures", _count_text(entry.pictures)
    yield "lesions", _count_text(entry.lesions)
    yield "patients", _count_text(entry.patients)
    yield "download", readable_size(entry.bytes)
    yield "image type", ", ".join(entry.image_type)
    yield "lesion ids, patient ids", f"{_yes_no(entry.lesion_ids)}, {_yes_no(entry.patient_ids)}"
    yield "skin type", entry.skin_type
    if entry.licence is not None:
        yield "licence", f"{entry.licence.name} (`{entry.licence.id}`), <{entry.licence.url}>"
        yield "redistribution", entry.licence.redistribution
        yield "commercial use", entry.licence.commercial_use
        if entry.licence.note:
            yield "note on the licence", entry.licence.note
    yield "cite", entry.citation + (f" <https://doi.org/{entry.doi}>" if entry.doi else "")
    if entry.landing:
        yield "landing page", f"<{entry.landing}>"
    yield "registration", f"needed: <{entry.registration}>" if entry.registration else "none"


def _fetching(entry: Dataset) -> Iterator[str]:
    if entry.fetchable and entry.licence is not None:
        yield "<!-- not run: downloads a dataset -->"
        yield "```sh"
        yield f"lesion-triage datasets fetch {entry.name} --to DIR --accept-licence {entry.licence.id}"
        yield "```"
        yield ""


def _files(entry: Dataset) -> Iterator[str]:
    if entry.figshare_article is not None:
        article = f"article {entry.figshare_article}"
        yield f"Files, sizes and MD5 are asked of Figshare, {article}, when they are fetched."
        yield ""
    if not entry.files:
        return
    yield "| file | size | checksum |"
    yield "|---|---|---|"
    for file in entry.files:
        only = f" (only with `--only {file.name}`)" if file.optional else ""
        yield f"| `{file.name}`{only} | {_file_size(file)} | {_checksum(file)} |"
    yield ""
    if entry.listed is not None:
        yield f"The pictures that `{entry.listed.table}` names are fetched one by one."
        yield ""


def _file_size(file: RemoteFile) -> str:
    if file.size_bytes is not None:
        return f"{file.size_bytes:,} bytes"
    return "unknown" if file.about_bytes is None else f"about {readable_size(file.about_bytes)}"


def _checksum(file: RemoteFile) -> str:
    if file.sha256:
        return f"SHA-256 `{file.sha256}` ({file.checksum_from})"
    return f"MD5 `{file.md5}` ({file.checksum_from})" if file.md5 else "none published"


def _layouts(entry: Dataset) -> Iterator[str]:
    for layout in entry.layouts:
        yield f"- {layout.name}{'' if layout.read else ' (checked; no reader takes it yet)'}:"
        for table in layout.tables:
            columns = (
                f", with columns {', '.join(f'`{name}`' for name in table.columns)}" if table.columns else ""
            )
            rows = f", {table.rows:,} rows" if table.rows is not None else ""
            needed = "" if table.required else " (not needed)"
            yield f"  - table {' or '.join(f'`{name}`' for name in table.names)}{needed}{rows}{columns}"
        if layout.arrays is not None:
            yield f"  - {' or '.join(f'`{name}`' for name in layout.arrays.names)} ({layout.arrays.kind})"
        if layout.pictures is not None:
            where = f"`{layout.pictures.pattern}`" if layout.pictures.pattern else "in any sub-folder"
            yield f"  - pictures {where}: {', '.join(layout.pictures.endings)}"


def _count_text(number: int | None) -> str:
    return "unknown" if number is None else f"{number:,}"


def _yes_no(truth: bool) -> str:
    return "yes" if truth else "no"
