from __future__ import annotations

import re

from lesion_triage.cli import main


def test_a_folder_that_cannot_be_made_is_told_before_anything_is_scored(tmp_path, capsys):
    in_the_way = tmp_path / "a file"
    in_the_way.touch()
    # The run is not there either, and would be missed next: the folder is what is asked for first.
    assert main(["robustness", str(tmp_path / "no run"), "--out", str(in_the_way / "out")]) == 2
    assert re.search("--out .* cannot be made", capsys.readouterr().err)
