"""README.txt of an export: what its tables hold, and what to read before certifying on them.

Imports the standard library.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

_README = """\
Outcomes of a reading queue of lesion-triage

cases.csv      one row for each photograph of each case whose outcome is known, with its history;
               the photographs are in photographs/. Unpack this folder, then for example

                   lesion-triage tally BUNDLE --cases cases.csv --site NAME --out tally.json
                   lesion-triage recertify BUNDLE --cases cases.csv --site NAME --out NEW_BUNDLE

               with the bundle that answered these cases, or any other.
{drawn_table}\
follow-up.csv  one row for each case that was read: how it was answered, with what probability it was drawn
               for follow-up, whether it was drawn, and its outcome, empty where not known. patient_id is the
               same in all exports, and drawn at random. For

                   lesion-triage watch BUNDLE --cases follow-up.csv

readings.csv   every reading of every case that was read, with or without a known outcome.
outcomes.csv   every outcome that was recorded; needs_in_person is empty where "unknown" was recorded. The
               last confirmed outcome of a case counts, and is the one in cases.csv.

Read before you certify:

  - A case whose outcome is not known is not in cases.csv. If outcomes are known only of people who came
    in person, the cases that the system missed are not among them, and the certificate promises nothing.
{counts}
  - Cases that nobody has read yet are in none of these tables.
  - In cases.csv patient_id is filled in only where two or more of these cases were recorded as one
    person's; of the others the person is not known. {counted}
  - recertify and tally write each look at these cases into ledger.jsonl beside cases.csv. If you certified
    on an earlier export, copy its ledger.jsonl here first; otherwise a second look passes for the first, and
    the certificate states more confidence than there is.
  - The photographs are those that were scored, without EXIF data, locations or file names. They show
    patients.
{contradictory}{untold}"""
_DRAWN = """\
drawn.csv      the rows of cases.csv of the cases that were drawn at random for follow-up when they came:
               cases taken as they come, whichever way they were answered. If the outcomes of all of them are
               known, or of nearly all, certify on this table:

                   lesion-triage recertify BUNDLE --cases drawn.csv --site NAME --out NEW_BUNDLE

               Its patient_id is that of cases.csv. A person is drawn as a whole: of cases that were said to
               be one person's all are, or none.
"""
_COUNTED = {
    True: """Some are, so recertify and tally count patients: a case without patient_id counts
    as a patient of its own, and the certificate says how many do.""",
    False: """None is, so recertify and tally count lesions, and the certificate says that it
    treats several lesions of one patient as independent.""",
}
"""By whether any person has several cases in the table."""
_CONTRADICTORY = """\
  - For these cases something else was recorded after an outcome had been confirmed. The last confirmed one is
    in cases.csv, and an "unknown" recorded after it does not remove it; look at outcomes.csv:
"""
_UNREADABLE_HISTORY = """\
  - The history of these cases was written by another version of the program and cannot be read by this one;
    their outcomes are known, but they are not in cases.csv:
"""


def text(
    known_and_read: Mapping[str, tuple[int, int]],
    known_and_drawn: tuple[int, int],
    counts_patients: bool,
    contradictory: Sequence[str],
    unreadable_history: Sequence[str],
) -> str:
    """The text.

    Args:
        known_and_read: by disposition: cases with a known outcome, and all.
        known_and_drawn: the same for the cases that were drawn for follow-up.
        counts_patients: whether any person has several cases in ``cases.csv``.
        contradictory: numbers of cases whose outcomes contradict each other.
        unreadable_history: numbers of cases that are left out of ``cases.csv`` for it.
    """
    counts = {**known_and_read, "drawn at random, whatever was answered": known_and_drawn}
    return _README.format(
        drawn_table=_DRAWN if known_and_drawn[1] else "",
        counts="\n".join(
            f"    {cases}: {known} of {count} read cases have a known outcome."
            for cases, (known, count) in counts.items()
        ),
        counted=_COUNTED[counts_patients],
        contradictory=_case_list(_CONTRADICTORY, contradictory),
        untold=_case_list(_UNREADABLE_HISTORY, unreadable_history),
    )


def _case_list(sentence: str, numbers: Sequence[str]) -> str:
    return "".join([sentence, *(f"    {number}\n" for number in numbers)]) if numbers else ""
