from __future__ import annotations

from pathlib import Path

import pytest
from optuna.study import Study
from optuna.trial import TrialState
from sqlalchemy.exc import SQLAlchemyError

from lesion_triage.errors import RunError
from lesion_triage.sweep import study as studies
from lesion_triage.sweep.space import Choices, Interval, Settings
from lesion_triage.sweep.study import TrialCoordinator

DOMAINS = {
    "train.learning_rate": Interval(1e-4, 1e-2, True, None, False),
    "train.loss": Choices(("bce", "focal")),
}
SETTINGS = Settings(startup_trials=3)


@pytest.fixture
def url(tmp_path) -> str:
    return f"sqlite:///{tmp_path / 'studies.db'}"


def coordinator(study: Study, folder: Path, take_over: bool = False) -> TrialCoordinator:
    return TrialCoordinator(study, folder, DOMAINS, take_over)


def finish(study: Study, trial) -> None:
    """A value that is a function of what was drawn."""
    study.tell(
        trial, -abs(trial.params["train.learning_rate"] - 2e-3) + (trial.params["train.loss"] == "focal")
    )


def test_what_is_drawn_does_not_depend_on_how_often_the_process_was_started(tmp_path, url):
    with studies.open_study(url, "one", SETTINGS, 3) as study:
        for _ in range(8):
            trial, lock = coordinator(study, tmp_path / "one").claim(8)
            with lock:
                finish(study, trial)
        whole = [trial.params for trial in study.trials]
    for _ in range(8):
        with studies.open_study(url, "two", SETTINGS, 3) as study:
            trial, lock = coordinator(study, tmp_path / "two").claim(8)
            with lock:
                finish(study, trial)
            parts = [trial.params for trial in study.trials]
    assert parts == whole
    assert len({params["train.learning_rate"] for params in whole}) == 8


def test_a_living_trial_is_left_alone_a_dead_one_is_taken_up_and_no_more_begin_than_are_wanted(tmp_path, url):
    with studies.open_study(url, "one", SETTINGS, 3) as study:
        here, there = coordinator(study, tmp_path), coordinator(study, tmp_path)
        first, living = here.claim(2)
        second, dying = there.claim(2)
        assert (first.number, second.number) == (0, 1)
        assert there.claim(2) is None  # both places are taken by the living
        dying.close()  # as the kernel does for a process that died
        again, lock = here.claim(2)
        assert again.number == 1
        assert again.params == second.params
        finish(study, first)
        finish(study, again)
        living.close()
        lock.close()
        assert here.claim(2) is None
        assert [trial.state for trial in study.trials] == [TrialState.COMPLETE] * 2


def test_a_trial_of_another_machine_is_left_alone_unless_it_is_given_up(tmp_path, url):
    with studies.open_study(url, "one", SETTINGS, 3) as study:
        trial, lock = coordinator(study, tmp_path / "a").claim(1)
        lock.close()
        assert coordinator(study, tmp_path / "b").claim(1) is None
        taken, lock = coordinator(study, tmp_path / "b", take_over=True).claim(1)
        lock.close()
        assert (taken.number, taken.params) == (trial.number, trial.params)


@pytest.mark.parametrize(
    "url", ["sqlite:////nowhere/at/all.db", "postgresql+psycopg2://me:secret@127.0.0.1:9/db", "no url"]
)
def test_a_storage_that_cannot_be_used_is_one_sentence_without_its_password(url):
    with (
        pytest.raises(RunError, match=r"the storage .* cannot be used") as caught,
        studies.open_study(url, "one", SETTINGS, 3),
    ):
        pass
    assert "secret" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_database_that_is_lost_without_a_word_is_one_sentence_too(url):
    with (
        pytest.raises(RunError, match=r"cannot be used \(SQLAlchemyError: SQLAlchemyError\)"),
        studies.open_study(url, "one", SETTINGS, 3),
    ):
        raise SQLAlchemyError("")
