"""What may identify a person is not repeated from a refused table, wherever the refusal is told or kept."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import yaml
from PIL import Image

import tiny_bundle
from lesion_triage.cli import main

SECRET = "quillfeather"
"""Planted in every cell and every file name that may hold a name."""

_WIDE = "image,needs_in_person,lesion_id,patient_id,sex,age_approx,bleeding,diameter_mm"
_ROW = f"{SECRET}-1.png,1,{SECRET}-L1,{SECRET}-P1,female,50,no,4"

REFUSED = {
    "no header": (f"{_ROW}\n", "line 1: expected a header"),
    "too many cells": (f"{_WIDE}\n{_ROW},{SECRET}\n", "line 2: more or fewer cells"),
    "bad quote": (f'{_WIDE}\n"{SECRET}" {_ROW}\n', "line 2: cannot be read"),
    "another encoding": (f"{_WIDE}\n\udce4{_ROW}\n", "line 2 has the byte 0xe4"),
    "carriage return": (
        f"{_WIDE}\n" + _ROW.replace("female", f'"{SECRET}\r{SECRET}"') + "\n",
        "line 3: the sex holds a carriage return",
    ),
    "no image": (f"{_WIDE}\n{_ROW.replace(SECRET + '-1.png', '')}\n", "line 2: the image cell is empty"),
    "path outside": (f"{_WIDE}\n../{_ROW}\n", "line 2: the path in image leaves"),
    "label": (f"{_WIDE}\n{_ROW.replace('.png,1,', f'.png,{SECRET},')}\n", "line 2: needs_in_person"),
    "age": (f"{_WIDE}\n{_ROW.replace(',50,', f',{SECRET},')}\n", "line 2: age_approx"),
    "sex": (f"{_WIDE}\n{_ROW.replace('female', f'??{SECRET}')}\n", "line 2: sex"),
    "yes or no": (f"{_WIDE}\n{_ROW.replace(',no,', f',{SECRET},')}\n", "line 2: bleeding"),
    "number": (f"{_WIDE}\n{_ROW[:-1]}{SECRET}\n", "line 2: diameter_mm"),
    "number beyond": (f"{_WIDE}\n{_ROW[:-1]}9999\n", "line 2: diameter_mm"),
    "spreadsheet": (f"{_WIDE}\n{_ROW.replace(f'{SECRET}-P1', '7.31951E+11')}\n", "line 2: patient_id"),
    "image twice": (f"{_WIDE}\n{_ROW}\n{_ROW}\n", "line 3: has the image of line 2"),
    "two spellings": (
        f"{_WIDE}\n{_ROW}\n{_ROW.replace('-1.png', '-2.png').replace('-P1', '-p1')}\n",
        "line 3: patient_id is probably that of line 2",
    ),
    "two patients": (
        f"{_WIDE}\n{_ROW}\n{_ROW.replace('-1.png', '-2.png').replace('-P1', '-P2')}\n",
        "line 3: has the lesion_id of ",
    ),
    "patient left out": (
        f"{_WIDE}\n{_ROW}\n{_ROW.replace('-1.png', '-2.png').replace(f'{SECRET}-P1', '')}\n",
        "line 3: has the lesion_id of ",
    ),
    "patient named as a lesion": (
        f"{_WIDE}\n{_ROW}\n" + _ROW.replace("-1.png", "-2.png").replace(f"-L1,{SECRET}-P1", "-P1,") + "\n",
        "line 3: names no patient",
    ),
    "pictures missing": (
        f"{_WIDE}\n{_ROW}\n{_ROW.replace('-1.png', '-3.png')}\n",
        "image_missing: 1, such as that of",
    ),
    "capital letters": (
        f"{_WIDE}\n{_ROW}\n{_ROW.replace('-1.png', '-2.PNG')}\n",
        "capital letters, which must agree",
    ),
}


@pytest.fixture(scope="module")
def experiments(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where all runs of this file are tracked."""
    return tmp_path_factory.mktemp("experiments")


def write_table(folder: Path, table: str) -> Path:
    folder.mkdir()
    for number in (1, 2):
        Image.new("RGB", (24, 16), (90 * number, 80, 70)).save(folder / f"{SECRET}-{number}.png")
    path = folder / "cases.csv"
    path.write_bytes(table.encode("utf-8", "surrogateescape"))
    return path


@pytest.mark.parametrize("what", REFUSED)
@pytest.mark.parametrize("verb", ["manifest", "recertify"])
def test_a_refused_table_is_described_by_line_and_column_alone(
    tmp_path: Path,
    experiments: Path,
    what: str,
    verb: str,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    table, sentence = REFUSED[what]
    cases = write_table(tmp_path / "site", table)
    if verb == "manifest":
        config = {
            "name": "clinic",
            "data": {"source": "folder", "table": str(cases)},
            "model": {"backbone": "test_efficientnet", "weights": "none"},
        }
        (tmp_path / "clinic.yaml").write_text(yaml.safe_dump(config))
        arguments = [str(tmp_path / "clinic.yaml"), "--data-root", str(cases.parent)]
        arguments += ["--runs", str(experiments / "runs")]
    else:
        bundle = tiny_bundle.make(tmp_path / "bundle").folder
        arguments = [str(bundle), "--cases", str(cases), "--site", "A", "--out", str(tmp_path / "new")]
    with caplog.at_level(logging.DEBUG):
        assert main([verb, *arguments]) == 2
    told = capfd.readouterr()
    assert sentence in told.err
    assert SECRET not in (told.out + told.err + caplog.text).lower()
    assert "7.31951" not in told.err
    kept = [file for file in (experiments, tmp_path) for file in file.rglob("*") if file.is_file()]
    for file in kept:
        if cases.parent not in file.parents:
            assert SECRET.encode() not in file.read_bytes().lower(), file
            assert SECRET not in str(file).lower()
    assert verb != "manifest" or (experiments / "mlflow.db") in kept  # the run was tracked


def test_a_table_of_cases_without_a_header_is_not_repeated_by_score_batch(tmp_path: Path, capfd) -> None:
    cases = tmp_path / "cases.csv"
    cases.write_text(f"{SECRET}-1,{SECRET}.png\n")
    bundle = tiny_bundle.make(tmp_path / "bundle").folder
    assert main(["score-batch", str(bundle), "--cases", str(cases), "--out", str(tmp_path / "out")]) == 2
    told = capfd.readouterr()
    assert "line 1: expected a header" in told.err
    assert SECRET not in told.out + told.err


@pytest.mark.parametrize(
    "row", [f"{SECRET},1,P1", f"0.5,{SECRET},P1", f"19840312,1,{SECRET}", f"0.5,1,{SECRET},{SECRET}"]
)
def test_a_table_of_scores_is_described_by_line_alone(tmp_path: Path, capfd, row: str) -> None:
    table = tmp_path / "scores.csv"
    table.write_text(f"score,needs_in_person,patient_id\n{row}\n")
    assert main(["plan", "--scores", str(table)]) == 2
    told = capfd.readouterr()
    assert "scores.csv, line 2: " in told.err
    assert SECRET not in told.out + told.err
    assert "19840312" not in told.err
