from __future__ import annotations

import json
import os
import subprocess
import sys
import tracemalloc
from pathlib import Path

import pytest

import tiny_bundle as tiny
from lesion_triage import cli
from lesion_triage.bundle.scorer import Scorer
from lesion_triage.bundle.store import open_bundle


def test_help_shows_the_pipeline_in_order(capsys):
    with pytest.raises(SystemExit) as caught:
        cli.main(["--help"])
    assert caught.value.code == 0
    text = capsys.readouterr().out
    places = [text.index(f"\n    {verb}") for verb in cli.VERBS]
    assert places == sorted(places)


def test_help_imports_no_training_library():
    code = (
        "import sys; from lesion_triage import cli; cli.parser('').format_help(); "
        "print([m for m in ('torch', 'mlflow', 'sklearn', 'onnxruntime', 'numpy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("verb", cli.VERBS)
def test_every_verb_of_the_table_has_its_functions(verb, capsys):
    with pytest.raises(SystemExit) as caught:
        cli.main([verb, "--help"])
    assert caught.value.code == 0
    assert f"usage: lesion-triage {verb} " in capsys.readouterr().out
    action = cli.VERBS[verb].run
    with pytest.raises(AttributeError, match="'NoneType' object has no attribute"):  # is called with it
        action(None)


SUMMARY = ["summary", "experiments/ham10000-baseline/seed-0.json"]


@pytest.mark.parametrize("buffering", ["", "1"], ids=["buffered", "unbuffered"])
@pytest.mark.parametrize("command", [SUMMARY, ["tables", "--check", "LICENSE"], ["--help"]])
def test_output_that_nobody_reads_or_that_finds_no_room_is_not_taken_for_done(command, buffering):
    """``promote BUNDLE | head -1`` stops before the alias is moved: neither 0 nor 1, which mean done."""

    def run(output):
        words = [sys.executable, "-m", "lesion_triage", *command]
        environment = {**os.environ, "PYTHONUNBUFFERED": buffering}
        pipes = {"stdout": output, "stderr": subprocess.PIPE}
        done = subprocess.run(words, check=False, text=True, env=environment, **pipes)
        return done.returncode, done.stderr

    reading, writing = os.pipe()
    os.close(reading)
    closed = run(writing)
    os.close(writing)
    with open("/dev/full", "w") as full:  # noqa: PTH123 - a device
        no_room = run(full)
    if command == ["--help"]:
        assert closed == no_room == (0, "")
    else:
        assert closed == (141, "")
        assert no_room[0] == 2
        assert "No space left on device" in no_room[1]
        assert no_room[1].count("\n") == 1


@pytest.mark.parametrize("runs", [".", "experiments/runs"])
def test_runs_in_the_folder_of_the_pictures_are_refused(tmp_path, monkeypatch, capsys, runs):
    """What a run is made from would change with whatever it writes, and no stage would ever be done."""
    config = tmp_path / "mine.yaml"
    config.write_text("name: mine\ndata:\n  source: folder\n")
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    monkeypatch.chdir(pictures)
    assert cli.main(["manifest", str(config), "--data-root", ".", "--runs", runs]) == 2
    assert "the runs would be in the folder of the pictures" in capsys.readouterr().err
    assert not list(pictures.iterdir())


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["run", "nowhere.yaml"], "ConfigError: nowhere.yaml: cannot be read"),
        (["score", "nowhere", "a.jpg"], "BundleError: nowhere: no such folder"),
        (["demo", "configs/ham10000.yaml"], "ConfigError: configs/ham10000.yaml: the demonstration draws"),
        (
            ["run", "configs/ham10000.yaml"],
            "RunError: the folder of the pictures is not known; give --data-root DIR",
        ),
        (
            ["run", "configs/ham10000_pad_ufes_20.yaml"],
            "RunError: the folder of the pictures of ham10000 is not known; give --data-root DIR",
        ),
        (
            ["run", "configs/ham10000.yaml", "--data-root", "nowhere"],
            "RunError: nowhere: no such folder",
        ),
        (
            ["run", "configs/ham10000.yaml", "--set", "train.epoch=1"],
            "ConfigError: configs/ham10000.yaml: unknown key 'train.epoch'; did you mean 'epochs'?",
        ),
    ],
)
def test_a_mistake_is_one_sentence_and_status_2(tmp_path, monkeypatch, capsys, arguments, expected):
    monkeypatch.delenv("LESION_TRIAGE_DATA_ROOT", raising=False)
    runs = ["--runs", str(tmp_path / "runs")] if arguments[0] == "run" else []
    assert cli.main([*arguments, *runs]) == 2
    error = capsys.readouterr().err
    assert error.startswith(expected)
    assert error.count("\n") == 1
    assert not (tmp_path / "runs").exists()


def test_score_prints_one_line_a_photograph_with_the_scorers_own_bits(
    tiny_bundle, picture_bytes, tmp_path, capsys
):
    paths = []
    for kind in ("referred", "below", "black"):
        paths.append(tmp_path / f"{kind}.png")
        paths[-1].write_bytes(picture_bytes(kind))
    assert cli.main(["score", str(tiny_bundle), *map(str, paths)]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["answer"]["disposition"] for line in lines] == [
        "needs_in_person",
        "below_threshold",
        "ungradable",
    ]
    scorer = Scorer.open(tiny_bundle)
    for path, line in zip(paths, lines, strict=True):
        assert line["answer"] == scorer.score([path.read_bytes()]).model_dump(mode="json")


def test_score_takes_all_photographs_as_one_case(tiny_bundle, picture_bytes, tmp_path, capsys):
    paths = []
    for kind in ("below", "referred"):
        paths.append(tmp_path / f"{kind}.png")
        paths[-1].write_bytes(picture_bytes(kind))
    assert cli.main(["score", str(tiny_bundle), *map(str, paths), "--one-case"]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert json.loads(line)["answer"]["disposition"] == "needs_in_person"


def test_score_prints_the_note_of_one_case_only(tiny_bundle, picture_bytes, tmp_path, capsys):
    files = [tmp_path / "one.png", tmp_path / "other.png"]
    for file in files:
        file.write_bytes(picture_bytes("referred"))
    words = ["score", str(tiny_bundle), *map(str, files), "--note"]
    assert cli.main(words) == 2
    printed = capsys.readouterr()
    assert not printed.out
    assert "could be filed with another case" in printed.err
    assert cli.main([*words, "--one-case"]) == 0
    assert "What the system said" in capsys.readouterr().out


def test_score_names_the_photograph_of_a_case_that_cannot_be_read(
    tiny_bundle, picture_bytes, tmp_path, capsys
):
    good, missing = tmp_path / "good.png", tmp_path / "missing.png"
    good.write_bytes(picture_bytes("below"))
    assert cli.main(["score", str(tiny_bundle), str(good), str(missing), "--one-case"]) == 2
    detail = json.loads(capsys.readouterr().out)["error"]["detail"]
    assert detail == "Photograph 2: cannot be read (No such file or directory)."


def test_score_reads_no_more_of_a_film_than_shows_that_it_is_too_long(tiny_bundle, tmp_path, capsys):
    film = tmp_path / "film.mov"
    with film.open("wb") as stream:
        stream.truncate(10**9)
    tracemalloc.start()
    assert cli.main(["score", str(tiny_bundle), str(film)]) == 2
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert json.loads(capsys.readouterr().out)["error"]["code"] == "image_too_large"
    assert most < 2 * open_bundle(tiny_bundle).header.pixels.max_bytes


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (None, "image_not_readable"),
        (b"", "image_empty"),
        (b"dear colleague", "image_format_not_supported"),
        (b"\xff\xd8\xff\xe0 and no more", "image_not_decodable"),
    ],
)
def test_score_goes_on_after_a_picture_that_cannot_be_used(
    tiny_bundle, picture_bytes, tmp_path, capsys, content, code
):
    bad, good = tmp_path / "bad.jpg", tmp_path / "good.png"
    if content is not None:
        bad.write_bytes(content)
    good.write_bytes(picture_bytes("referred"))
    assert cli.main(["score", str(tiny_bundle), str(bad), str(good)]) == 2
    captured = capsys.readouterr()
    first, second = (json.loads(line) for line in captured.out.splitlines())
    assert first["error"]["code"] == code
    assert second["answer"]["disposition"] == "needs_in_person"
    assert captured.err.count("\n") == 1


def test_score_goes_on_after_a_case_of_which_the_graph_gives_no_number(picture_bytes, tmp_path, capsys):
    broken = tiny.make_with_nan_logit(tmp_path / "broken").folder
    low, dark = tmp_path / "low.png", tmp_path / "dark.png"
    low.write_bytes(picture_bytes("below"))
    dark.write_bytes(picture_bytes("black"))
    assert cli.main(["score", str(broken), str(low), str(dark)]) == 2
    captured = capsys.readouterr()
    first, second = map(json.loads, captured.out.splitlines())
    assert (first["error"]["code"], "answer" in first) == ("not_scored", False)
    assert "finite" in first["error"]["detail"]
    assert second["answer"]["disposition"] == "ungradable"
    assert "finite" in captured.err


@pytest.mark.parametrize(
    ("history", "sentence"),
    [
        ('{"bleeding": true, "bleeding": false}', "--history: bleeding: the field appears twice; keep one."),
        ('{"age_years": true}', "--history: age_years: Value error, expected a number, found true or false."),
    ],
)
def test_score_refuses_a_history_that_could_be_read_in_two_ways(tiny_bundle, capsys, history, sentence):
    assert cli.main(["score", str(tiny_bundle), "a.jpg", "--history", history]) == 2
    assert sentence in capsys.readouterr().err


def test_score_refuses_a_bundle_with_one_flipped_byte(tiny_bundle, tmp_path, capsys):
    copy = tmp_path / "bundle"
    for file in sorted(path for path in Path(tiny_bundle).rglob("*") if path.is_file()):
        target = copy / file.relative_to(tiny_bundle)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(file.read_bytes())
    graph = bytearray((copy / "model.onnx").read_bytes())
    graph[len(graph) // 2] ^= 1
    (copy / "model.onnx").write_bytes(graph)
    assert cli.main(["score", str(copy), "a.jpg"]) == 2
    assert "model.onnx" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words", [["compare", "LINK", "LINK"], ["robustness", "LINK", "--out", "LINK"], ["certificate", "LINK"]]
)
def test_a_link_that_leads_to_itself_is_one_sentence(tmp_path, capsys, words):
    link = tmp_path / "link"
    link.symlink_to("link")
    assert cli.main([str(link) if word == "LINK" else word for word in words]) == 2
    said = capsys.readouterr().err
    assert str(link) in said
    assert said.count("\n") == 1
