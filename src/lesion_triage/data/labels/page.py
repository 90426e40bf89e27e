"""The label table as a page for reviewers: ``python -m lesion_triage.data.labels.page > docs/labels.md``.

Imports this package alone.
"""

from __future__ import annotations

from collections.abc import Iterator

from lesion_triage.data.labels.codes import CODES
from lesion_triage.data.labels.decisions import DECISIONS, REFERENCES

_TRUTH = {True: "yes", False: "no", None: "not decided"}
_HEAD = """\
# The label table

Which lesion counts as "needs an in-person visit". It is the reference standard for training and for the
certificate, and **a clinical decision: not yet reviewed by a clinician who answers for it.** Whoever reviews
it reads the first table line by line, and the others for whether each dataset's code means what it is filed
under.

The question is asked of a lesion whose nature is known: did this one have to be seen and treated in the
flesh? A lesion that grows, bleeds or worries its bearer deserves a visit whatever it turns out to be; that is
a [red flag](red-flags.md) and no reason to change a line. "Not decided" records enter no split, and are never
counted as "no".

Written by `python -m lesion_triage.data.labels.page` from `data/labels/`; a test compares the two.

## Decisions

| kind of lesion | in person | why | source |
|---|---|---|---|
"""


def page() -> str:
    """The whole page in Markdown."""
    return "\n".join((_HEAD + "\n".join(_decisions()), "", *_references(), *_codes(), ""))


def _decisions() -> Iterator[str]:
    for key, line in DECISIONS.items():
        if not key.startswith("drawn"):
            yield f"| {line.name} | {_TRUTH[line.needs_in_person]} | {line.why} | {line.source} |"


def _references() -> Iterator[str]:
    yield "## References\n"
    for short, full in REFERENCES.items():
        yield f"- **{short}**: {full}"
    yield ""


def _codes() -> Iterator[str]:
    yield "## Each dataset's own codes\n"
    yield "The reference beside the name says what the codes mean; the reader's docstring has it in full."
    for family, (reference, codes) in CODES.items():
        if family == "synthetic":
            continue
        yield f"\n### {family} ({reference})\n"
        yield "| in person | kind of lesion | codes |"
        yield "|---|---|---|"
        for key, line in DECISIONS.items():
            if found := [code for code, decision in codes.items() if decision == key]:
                names = ", ".join(f"`{code}`" if code else "no diagnosis" for code in found)
                yield f"| {_TRUTH[line.needs_in_person]} | {line.name} | {names} |"


if __name__ == "__main__":
    print(page(), end="")
