"""What a photograph costs: processor time of the scorer with one bundle over that with another, by turns.

    OMP_NUM_THREADS=1 python experiments/ham10000-best/price.py RUN/bundle OTHER_RUN/bundle

The photographs are those of the first bundle's self-test. A ratio of two turns that follow each other is
worth more than seconds, of which a shared machine has other ones each minute.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path

from lesion_triage.bundle.scorer import Scorer
from lesion_triage.bundle.store import open_bundle
from lesion_triage.console import echo


def main() -> None:
    """Print median and range of the ratio."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("first", type=Path, help="bundle")
    parser.add_argument("other", type=Path, help="bundle that the first is divided by")
    parser.add_argument("--turns", type=int, default=12, help="of each (12)")
    arguments = parser.parse_args()
    photographs = list(open_bundle(arguments.first).selftest_pictures.values())
    scorers = [Scorer.open(folder) for folder in (arguments.first, arguments.other)]
    for scorer in scorers:
        seconds(scorer, photographs)  # the first is dearer than all that follow
    found = [[seconds(scorer, photographs) for scorer in scorers] for _ in range(arguments.turns)]
    ratios = [first / other for first, other in found]
    echo(
        f"{statistics.median(ratios):.1f} ({min(ratios):.1f} to {max(ratios):.1f}) times, "
        f"{arguments.turns} turns of {len(photographs)} photographs: "
        f"{1000 * statistics.median(first for first, _ in found):.0f} ms over "
        f"{1000 * statistics.median(other for _, other in found):.0f} ms of processor time"
    )


def seconds(scorer: Scorer, photographs: list[bytes]) -> float:
    """Processor seconds a photograph."""
    began = time.process_time()
    for photograph in photographs:
        scorer.decide_case([photograph])
    return (time.process_time() - began) / len(photographs)


if __name__ == "__main__":
    main()
