"""What makes photographs belong together, and the resulting groups. Imports records."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise

from lesion_triage.data.records import Record

GroupKey = tuple[str, str]


def group_keys(record: Record) -> Iterator[GroupKey]:
    """Kind and name of everything that a record shares with the other records of its group."""
    if record.patient_id is not None:
        yield "patient", record.patient_id
    yield "lesion", record.lesion_id
    yield "file", record.sha256
    if record.duplicate_group:
        yield "duplicate group", record.duplicate_group


def connected_groups(
    records: Sequence[Record], keys_of: Callable[[Record], Iterator[GroupKey]] = group_keys
) -> list[list[Record]]:
    """Connected components over the shared keys, in order of their first records."""
    numbers: dict[GroupKey, int] = {}
    parent: list[int] = []

    def number_of(key: GroupKey) -> int:
        number = numbers.setdefault(key, len(parent))
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
        found = [number_of(key) for key in keys_of(record)]
        first.append(found[0])
        for one, other in pairwise(found):
            parent[root_of(one)] = root_of(other)
    components: dict[int, list[Record]] = {}
    for record, node in zip(records, first, strict=True):
        components.setdefault(root_of(node), []).append(record)
    return list(components.values())
