"""What makes photographs belong together, and the resulting groups. Imports records."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise

from lesion_triage.data.records import Record

Tie = tuple[str, str]


def ties(record: Record) -> Iterator[Tie]:
    """Kind and name of everything that a record shares with the other records of its group."""
    if record.patient_id is not None:
        yield "patient", record.patient_id
    yield "lesion", record.lesion_id
    yield "file", record.sha256
    if record.duplicate_group:
        yield "duplicate group", record.duplicate_group


def groups(
    records: Sequence[Record], tied_by: Callable[[Record], Iterator[Tie]] = ties
) -> list[list[Record]]:
    """Connected components over the ties, in order of their first records."""
    numbers: dict[Tie, int] = {}
    parent: list[int] = []

    def number_of(tie: Tie) -> int:
        number = numbers.setdefault(tie, len(parent))
        if number == len(parent):
            parent.append(number)
        return number

    def root_of(node: int) -> int:
        while parent[node] != node:
            parent[node] = parent[parent[node]]  # path halving keeps this near-linear
            node = parent[node]
        return node

    first: list[int] = []
    for record in records:
        found = [number_of(tie) for tie in tied_by(record)]
        first.append(found[0])
        for one, other in pairwise(found):
            parent[root_of(one)] = root_of(other)
    components: dict[int, list[Record]] = {}
    for record, node in zip(records, first, strict=True):
        components.setdefault(root_of(node), []).append(record)
    return list(components.values())
