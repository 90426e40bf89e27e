"""Promotion against a real registry: a local database, and every reason to refuse."""

from __future__ import annotations

import dataclasses
import json
import math
import re
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import made_runs
import tiny_bundle
from lesion_triage import cli
from lesion_triage.bundle import signing
from lesion_triage.bundle.document import sha256_of
from lesion_triage.bundle.schema import SelfTest
from lesion_triage.bundle.store import open_bundle
from lesion_triage.cards.dossier import Dossier
from lesion_triage.errors import PromotionError
from lesion_triage.promotion import record
from lesion_triage.tracking.registry import Registry

WORSE = [made_runs.slice_("all", 80, 100, 120, 200)]


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("experiments")


@pytest.fixture(scope="module")
def registry(home) -> Registry:
    return Registry(f"sqlite:///{home / 'mlflow.db'}", (home / "mlartifacts").as_uri())


@pytest.fixture
def run(home, request) -> Path:
    """A run of which nothing is amiss; each has a bundle of its own."""
    name = f"run-{sha256_of(request.node.name.encode())[:12]}"
    return made_runs.make(home / "runs" / name, certificate={"purpose": name})


def promote(run: Path, *more: str, to: str = "champion", model: str = "") -> int:
    named = ["--model", model or run.name]
    return cli.main(["promote", str(run), "--to", to, "--by", "Ada", "--why", "it is better", *named, *more])


def test_the_first_champion_is_registered_with_who_and_why(run, registry, capsys):
    assert promote(run) == 0
    said = capsys.readouterr().out
    for evidence in ("certificate", "parity", "audit", "self-test passes", "version 1 is champion now"):
        assert evidence in said
    version = registry.find_by_alias(run.name, "champion")
    assert version.tags["promoted.champion.by"] == "Ada"
    assert version.tags["promoted.champion.why"] == "it is better"
    assert "by Ada: it is better" in version.description
    asked, done = record.read(run)
    assert (asked["event"], done["event"]) == ("asked", "done")
    assert asked["bundle_sha256"] == version.bundle_sha256
    assert promote(run) == 0
    assert "is already champion" in capsys.readouterr().out
    assert len(record.read(run)) == 2


@pytest.mark.parametrize(
    ("amiss", "expected"),
    [
        (
            lambda run: (run / "report" / "results.json").unlink(),
            r"no record of how far torch and onnxruntime",
        ),
        (
            lambda run: made_runs.rewrite(
                run / "report" / "results.json",
                parity={"images": 9, "largest_score_difference": 0.2, "decision_flips": 0},
            ),
            r"differ by 2\.0e-01 in a score",
        ),
        (
            lambda run: made_runs.rewrite(
                run / "report" / "results.json",
                parity={"images": 9, "largest_score_difference": 0.0, "decision_flips": 1},
            ),
            r"in 1 decisions \(none allowed\)",
        ),
        (
            lambda run: made_runs.rewrite(
                run / "report" / "results.json",
                parity={"images": 9, "largest_score_difference": math.nan, "decision_flips": 0},
            ),
            r"differ by nan in a score",
        ),
        (
            lambda run: made_runs.rewrite(
                run / "report" / "results.json",
                parity={"images": 9, "largest_score_difference": 0.0, "decision_flips": None},
            ),
            r"in None decisions",
        ),
        (
            lambda run: (run / "audit_with_model" / "audit.json").unlink(),
            r"no audit of this bundle's data and graph",
        ),
        (
            lambda run: made_runs.rewrite(
                run / "audit_with_model" / "audit.json", facts={"with_model": False}
            ),
            r"no audit of this bundle's data and graph",
        ),
        (
            lambda run: made_runs.rewrite(
                run / "audit_with_model" / "audit.json",
                verdict="fail",
                findings=[{"code": "leakage", "counts_as": "fail"}],
            ),
            r"the audit fails on leakage",
        ),
        (
            lambda run: (run / "bundle" / "certificate.json").unlink(),
            r"BundleError: .*certificate\.json missing",
        ),
        (
            lambda run: (run / "bundle" / "policy.json").write_text("{}"),
            r"BundleError: .*policy\.json: expected .* bytes as sealed",
        ),
    ],
    ids=[
        "no-results",
        "far",
        "flips",
        "nan",
        "no-flips",
        "no-audit",
        "data-only",
        "audit-fails",
        "no-certificate",
        "altered",
    ],
)
def test_a_bundle_that_lacks_something_is_refused_and_nothing_is_registered(
    run, registry, capsys, amiss, expected
):
    amiss(run)
    assert promote(run) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert re.search(expected, error), error
    assert registry.find_by_alias(run.name, "champion") is None
    assert not (run / "promotions.jsonl").exists()


def test_a_bundle_whose_self_test_fails_here_is_refused(home, capsys):
    sealed = tiny_bundle.seal_arguments()["selftest"]
    off = [case.model_copy(update={"logit": case.logit + 1} if case.logit else {}) for case in sealed.cases]
    run = made_runs.make(home / "runs" / "other-machine", selftest=SelfTest(cases=tuple(off)))
    assert promote(run) == 2
    assert "The self-test fails here" in capsys.readouterr().err


def test_drawn_pictures_pass_only_when_told(home, registry, capsys):
    run = made_runs.make(home / "runs" / "drawn", synthetic=True)
    assert promote(run) == 2
    assert "made from drawn pictures" in capsys.readouterr().err
    assert promote(run, "--synthetic") == 0
    version = registry.find_by_alias("drawn", "champion")
    assert version.tags["synthetic"] == "true"


def test_a_signature_is_asked_for_only_when_keys_are_named(run, tmp_path, capsys):
    private, public, _ = signing.generate_key_pair(tmp_path / "key", None)
    assert promote(run, "--trusted", str(public)) == 2
    assert "SignatureError" in capsys.readouterr().err
    signing.sign(open_bundle(run / "bundle"), signing.read_private_key(private, None))
    assert promote(run, "--trusted", str(public)) == 0
    assert "signed with key" in capsys.readouterr().out


def test_nobody_and_no_reason_is_refused(run, capsys):
    assert cli.main(["promote", str(run), "--to", "champion", "--by", " ", "--why", "x"]) == 2
    assert "--by is empty" in capsys.readouterr().err


def test_a_regression_is_refused_until_somebody_accepts_it_and_the_old_one_can_come_back(
    run, home, registry, capsys
):
    assert promote(run) == 0
    worse = made_runs.make(home / "runs" / "worse", slices=WORSE)
    assert promote(worse, model=run.name) == 2
    said = capsys.readouterr()
    assert "# Change record" in said.out
    assert "regresses against the champion: Slice all: sensitivity 0.950 before, 0.800 now" in said.err
    assert not (worse / "promotions.jsonl").exists()
    assert registry.find_by_bundle(run.name, json.loads(results(worse))["bundle_sha256"]) is None

    assert promote(worse, "--accept-regression", "the old camera is gone", model=run.name) == 0
    version = registry.find_by_alias(run.name, "champion")
    assert version.number == "2"
    assert version.tags["promoted.champion.accepted_regression"] == "the old camera is gone"
    assert record.read(worse)[1]["accepted_regression"] == "the old camera is gone"
    (kept,) = (worse / "promotions").glob("*.md")
    assert "Accepted nevertheless: the old camera is gone" in kept.read_text()

    assert promote(run, model=run.name) == 0
    back = registry.find_by_alias(run.name, "champion")
    assert back is not None
    assert back.number == "1"
    assert record.read(run)[-1]["replaced"] == version.bundle_sha256
    assert back.description.count("champion, by Ada") == 2


def results(run: Path) -> str:
    return (run / "report" / "results.json").read_text()


def test_a_challenger_may_be_worse_and_is_compared_all_the_same(run, home, registry, capsys):
    assert promote(run) == 0
    other = made_runs.make(home / "runs" / "challenger", slices=WORSE)
    assert promote(other, to="challenger", model=run.name) == 0
    assert "Regression by the rule" in capsys.readouterr().out
    champion, challenger = (registry.find_by_alias(run.name, alias) for alias in ("champion", "challenger"))
    assert champion is not None
    assert challenger is not None
    assert (champion.number, challenger.number) == ("1", "2")


def test_a_bundle_that_was_certified_again_needs_the_run_of_its_graph_and_an_accepting_word(
    run, tmp_path, capsys
):
    assert promote(run) == 0
    site = (
        made_runs.make(tmp_path / "experiments" / "runs" / "site", certificate={"site": "Ghent"}) / "bundle"
    )
    alone = tmp_path / "again"
    shutil.copytree(site, alone)
    assert promote(alone, model=run.name) == 2
    assert "--run names the run" in capsys.readouterr().err
    assert promote(alone, "--run", str(run), model=run.name) == 2
    assert "One of the two has no results" in capsys.readouterr().err
    more = ("--run", str(run), "--accept-regression", "certified at the site")
    assert promote(alone, *more, model=run.name) == 0
    assert record.read(run)[-1]["accepted_regression"] == "certified at the site"


def test_an_altered_record_stops_the_next_promotion(run, home, capsys):
    assert promote(run) == 0
    path = run / "promotions.jsonl"
    path.write_text(path.read_text().replace("it is better", "it was asked for"))
    with pytest.raises(PromotionError, match=r"line 2: the record was altered"):
        record.read(run)
    assert promote(run, to="challenger") == 2
    assert "the record was altered" in capsys.readouterr().err


def entry(**more: str) -> record.Entry:
    told = dict.fromkeys((field.name for field in dataclasses.fields(record.Entry)), "")
    return record.Entry(**{**told, "event": "asked", **more})  # type: ignore[arg-type]


@pytest.mark.parametrize("odd", ["\u2028", "\u2029", "\u0085", "\x0b", "\r\n"])
def test_a_character_that_looks_like_the_end_of_a_line_does_not_lock_the_record(tmp_path, odd):
    record.append(tmp_path, entry(why=f"it is{odd}better", by=f"Ada{odd}"))
    record.append(tmp_path, entry(why="and again"))
    assert [line["why"] for line in record.read(tmp_path)] == [f"it is{odd}better", "and again"]
    assert len(Dossier(tmp_path).at(record.FILE)) == 2


def test_promotions_at_one_moment_do_not_lock_the_record(tmp_path):
    def append(number: int) -> None:
        record.append(tmp_path, entry(why=str(number)))

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(append, range(40)))
    assert sorted(int(line["why"]) for line in record.read(tmp_path)) == list(range(40))


def test_an_empty_record_has_no_line(tmp_path):
    (tmp_path / record.FILE).touch()
    assert record.read(tmp_path) == []


def test_a_line_that_the_disk_has_no_room_for_does_not_lock_the_record(tmp_path, full_disk):
    record.append(tmp_path, entry(why="one"))
    full = full_disk((tmp_path / record.FILE).stat().st_size + 20)
    with full, pytest.raises(PromotionError, match="cannot be written"):
        record.append(tmp_path, entry(why="two"))
    record.append(tmp_path, entry(why="three"))
    assert [line["why"] for line in record.read(tmp_path)] == ["one", "three"]


def test_a_registry_that_is_down_is_one_sentence_without_a_password(run, capsys):
    assert promote(run, "--uri", "http://ada:secret@127.0.0.1:9") == 2
    error = capsys.readouterr().err
    assert error.startswith("RegistryError: the model registry at http://127.0.0.1:9 refused the request")
    assert "secret" not in error
    assert not (run / "promotions.jsonl").exists()


def test_no_name_of_a_photograph_and_no_place_comes_into_the_registry(run, home, registry):
    """Planted where a run does hold names; then every file and the database are searched."""
    names = ["images/John-Roe.jpg"]
    manifest = {
        "source": "folder",
        "records": 3,
        "dropped": {"unreadable": names},
        "findings": {"copy": names},
    }
    (run / "manifest.json").write_text(json.dumps(manifest))
    (run / "splits.json").write_text(json.dumps({"image_ids": {"train": names}}))
    made_runs.rewrite(run / "report" / "results.json", gallery=names)
    made_runs.rewrite(run / "audit_with_model" / "audit.json", tables=[{"rows": [names]}])
    assert promote(run) == 0
    version = registry.find_by_alias(run.name, "champion")
    with registry.downloaded(version) as folder:
        kept = {
            path.relative_to(folder / "record").as_posix() for path in (folder / "record").rglob("*.json")
        }
    assert kept == {"report/results.json", "audit_with_model/audit.json", "config.json", "data.json"}
    files = [home / "mlflow.db", *(path for path in (home / "mlartifacts").rglob("*") if path.is_file())]
    assert len(files) > 10
    for path in files:
        content = path.read_bytes()
        assert b"John-Roe" not in content, path
        assert b"/srv/Jane-Doe" not in content, path
