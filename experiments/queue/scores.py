"""Cases for the reading queue, from the recorded logits of held-out lesions. No picture, no identifier.

``python experiments/queue/scores.py`` writes case_scores.csv anew from certificate-coverage/scores.csv: one
row for each lesion of the split test, the highest of its photographs, through a sigmoid. An order does not
ask which calibrator is used, as long as it rises.
"""

from __future__ import annotations

import csv
import io
import math
from pathlib import Path

from lesion_triage.bundle.files import write_atomically

HERE = Path(__file__).parent
TABLE = HERE.parent / "certificate-coverage" / "scores.csv"
DIGITS = 6


def table(text: str) -> str:
    """The cases of a table of photographs; a case without a gradable one has no score."""
    cases: dict[str, tuple[list[float], bool]] = {}
    for row in csv.DictReader(io.StringIO(text)):
        if row["split"] == "test":
            logits, positive = cases.setdefault(row["case"], ([], row["needs_in_person"] == "True"))
            assert positive == (row["needs_in_person"] == "True")
            logits += [float(row["logit"])] if row["logit"] else []
    lines = ["score,needs_in_person"]
    for logits, positive in cases.values():
        score = f"{1 / (1 + math.exp(-max(logits))):.{DIGITS}f}" if logits else ""
        lines.append(f"{score},{positive}")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    write_atomically(HERE / "case_scores.csv", table(TABLE.read_text(encoding="utf-8")).encode())
