"""The catalogue says nothing without a source, and the pages that are made from it are its own."""

from __future__ import annotations

import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest
import yaml
from pydantic import ValidationError

from lesion_triage import cli
from lesion_triage.config import Data
from lesion_triage.data.catalogue import dataset, datasets, page
from lesion_triage.data.catalogue.entry import Dataset, RemoteFile, read_entry
from lesion_triage.errors import DataError

ROOT = Path(__file__).resolve().parents[3]
NAMES = [
    "bcn20000",
    "ddi",
    "derm7pt",
    "dermamnist",
    "fitzpatrick17k",
    "folder",
    "ham10000",
    "isic_2018",
    "isic_2019",
    "isic_2020",
    "isic_2024",
    "milk10k",
    "pad_ufes_20",
    "ph2",
    "scin",
]


def test_every_supported_dataset_has_an_entry():
    assert [entry.name for entry in datasets()] == NAMES


def test_every_source_of_the_configuration_that_is_a_dataset_has_an_entry():
    sources = set(_words(Data.model_fields["source"].annotation))
    assert "ham10000" in sources
    assert sources - {entry.name for entry in datasets()} <= {"synthetic", "mixture"}


def _words(annotation: object) -> Iterator[object]:
    """The words of a Literal, or of a union of several."""
    for one in get_args(annotation):
        yield from _words(one) if get_args(one) else [one]


@pytest.mark.parametrize("entry", datasets(), ids=lambda one: one.name)
def test_every_fact_has_a_source(entry):
    assert entry.sources.keys() == {"counts", "licence", "files", "layout"}
    assert all(entry.sources.values())
    assert all(trap.source for trap in entry.traps)
    assert entry.traps


@pytest.mark.parametrize("entry", [one for one in datasets() if one.fetchable], ids=lambda one: one.name)
def test_what_can_be_fetched_has_a_licence_and_secure_addresses(entry):
    assert entry.licence is not None
    urls = [url for file in entry.files for url in file.urls]
    urls += [entry.listed.base_url] if entry.listed else []
    assert all(url.startswith("https://") for url in urls)
    assert entry.figshare_article or all(file.urls for file in entry.files)


def test_licences_that_forbid_commerce_say_so():
    for entry in datasets():
        if entry.licence is not None and "-NC" in entry.licence.id:
            assert entry.licence.commercial_use == "no", entry.name


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ({"name": "a.csv", "md5": "0" * 32}, "who published it"),
        ({"name": "a.csv", "checksum_from": "somebody"}, "who published it"),
        ({"name": "a.csv", "md5": "0" * 31, "checksum_from": "somebody"}, "md5"),
        ({"name": "../a.csv"}, "relative path"),
        ({"name": "/a.csv"}, "relative path"),
        ({"name": "a.csv", "size": 3}, "size"),
    ],
)
def test_a_file_without_a_source_or_a_place_is_refused(wrong, why):
    with pytest.raises(ValidationError, match=why):
        RemoteFile.model_validate(wrong)


def test_an_entry_with_a_misspelt_key_or_anothers_name_is_refused(tmp_path):
    said = yaml.safe_load(_entry_file("ph2").read_text())
    (tmp_path / "ph2.yaml").write_text(yaml.safe_dump(said | {"licensed": "yes"}))
    with pytest.raises(DataError, match="licensed"):
        read_entry(tmp_path / "ph2.yaml")
    (tmp_path / "ph3.yaml").write_text(yaml.safe_dump(said))
    with pytest.raises(DataError, match="expected the entry of 'ph3', found that of 'ph2'"):
        read_entry(tmp_path / "ph3.yaml")


def _entry_file(name: str) -> Path:
    return ROOT / "src/lesion_triage/data/catalogue/entries" / f"{name}.yaml"


def test_the_page_is_the_catalogues_own():
    written = (ROOT / "docs" / "datasets.md").read_text(encoding="utf-8")
    assert written == page.page(datasets()), (
        "docs/datasets.md has drifted: lesion-triage datasets --markdown > docs/datasets.md"
    )


def test_what_nobody_published_is_shown_as_unknown():
    ham = dataset("ham10000")
    assert page.row(ham)[3] == "unknown"
    assert "none published" in page.card(dataset("isic_2019"))
    assert "unknown" in page.card(dataset("milk10k"))


@pytest.mark.parametrize("entry", datasets(), ids=lambda one: one.name)
def test_every_card_has_what_a_careful_reader_needs(entry):
    text = page.card(entry)
    for needed in (entry.citation, *entry.steps, *(trap.text for trap in entry.traps)):
        assert needed in text
    if entry.licence is not None:
        assert entry.licence.id in text
        assert entry.licence.url in text


@pytest.mark.parametrize("entry", [one for one in datasets() if one.fetchable], ids=lambda one: one.name)
def test_the_command_on_a_card_names_the_licence_that_the_program_asks_for(entry):
    (line,) = [
        line for line in page.card(entry).splitlines() if line.startswith("lesion-triage datasets fetch")
    ]
    words = cli.parser("datasets").parse_args(shlex.split(line)[1:])
    assert words.name == entry.name
    assert words.accept_licence == entry.licence.id


def test_underscores_may_be_left_out():
    assert dataset("isic2019") is dataset("isic_2019")


def test_an_unknown_name_is_refused_with_the_nearest_known_one(capsys):
    assert cli.main(["datasets", "show", "ham1000"]) == 2
    assert (
        capsys.readouterr().err
        == "DataError: no dataset 'ham1000' in the catalogue; did you mean 'ham10000'?\n"
    )


def test_the_list_has_a_line_for_each_and_its_columns_can_be_cut(capsys):
    assert cli.main(["datasets"]) == 0
    lines = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert lines[0] == list(page.COLUMNS)
    assert [line[0] for line in lines[1:]] == NAMES
    assert {len(line) for line in lines} == {len(page.COLUMNS)}


@pytest.mark.parametrize("name", ["ddi", "derm7pt", "ph2"])
def test_what_takes_a_signature_is_explained_and_not_fetched(name, tmp_path, capsys):
    words = ["datasets", "fetch", name, "--to", str(tmp_path / "new"), "--accept-licence", "any"]
    assert cli.main(words) == 2
    text = capsys.readouterr().out
    assert all(step in text for step in dataset(name).steps)
    assert not (tmp_path / "new").exists()


def test_fetch_names_the_licence_it_wants_accepted(tmp_path, capsys):
    assert cli.main(["datasets", "fetch", "scin", "--to", str(tmp_path / "new")]) == 2
    error = capsys.readouterr().err
    assert error.startswith("DownloadError: scin comes under SCIN Data Use License, and none was accepted.")
    assert "--accept-licence LicenseRef-SCIN" in error
    assert error.count("\n") == 1
    assert not (tmp_path / "new").exists()


def test_ones_own_folder_is_not_fetched(tmp_path, capsys):
    assert cli.main(["datasets", "fetch", "folder", "--to", str(tmp_path)]) == 2
    assert "nothing to fetch" in capsys.readouterr().err


def test_a_card_in_a_pipe_is_markdown(capsys):
    assert cli.main(["datasets", "show", "ham10000"]) == 0
    assert capsys.readouterr().out == page.card(dataset("ham10000"))


def test_list_card_and_check_need_no_more_than_the_base_installation(tmp_path):
    code = (
        "import sys; sys.modules['requests'] = sys.modules['torch'] = None; "
        "from lesion_triage.cli import main; "
        "print([main(['datasets', *words]) for words in "
        "([], ['show', 'ph2'], ['check', sys.argv[1], '--as', 'ph2'])]); "
        "main(['datasets', 'fetch', 'scin', '--to', sys.argv[1], '--accept-licence', 'LicenseRef-SCIN'])"
    )
    words = [sys.executable, "-c", code, str(tmp_path)]
    done = subprocess.run(words, capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.splitlines()[-1] == "[0, 0, 2]"
    said = "install the extra [train]; in a checkout: pip install '.[train]'."
    assert done.stderr == f"'datasets' needs requests: {said}\n"


def test_entries_are_frozen():
    with pytest.raises(ValidationError):
        dataset("ham10000").pictures = 1
    assert isinstance(dataset("ham10000"), Dataset)
