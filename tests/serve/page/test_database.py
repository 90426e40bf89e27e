"""The queue keeps its promises on SQLite and on a real PostgreSQL server, made for these tests."""

from __future__ import annotations

import asyncio
import os
import resource
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from itertools import product
from pathlib import Path
from threading import Barrier, Event
from typing import Any

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import MetaData, create_engine, inspect, select, text

import tiny_bundle
from lesion_triage.bundle.history import History
from lesion_triage.errors import ConfigError
from triage_server.cli import main
from triage_server.page.database import (
    POSTGRESQL,
    Base,
    _alembic_config,
    _parse_url,
    migrate_at,
    open_database,
)
from triage_server.page.database_threads import DatabaseThreads
from triage_server.page.records import Actor
from triage_server.page.store import ReadingQueue
from triage_server.problems import RequestError

PICTURES = [tiny_bundle.picture_bytes(kind) for kind in ("below", "referred")]
READER = Actor("key:0123456789ab", "Dr A")


def add(queue: ReadingQueue, answers: Any, **more: Any) -> str:
    number = queue.draw_number()
    queue.add(number, answers, PICTURES, History(bleeding=True, age_years=61.5), "key:0123456789ab", **more)
    return number


def test_case_comes_back_as_it_was_put_in(queue: ReadingQueue, answers: Any) -> None:
    begin = datetime.now(UTC)
    number = add(queue, answers)
    (waiting,) = queue.waiting_cases()[0].cases
    assert waiting.number == number
    case = queue.find(number)
    assert begin <= case.urgency.arrived_at <= datetime.now(UTC)
    assert case.answers == {one.language: one for one in answers}
    assert case.answer("fr") == answers[0]
    assert case.history == History(bleeding=True, age_years=61.5)
    assert [queue.photograph(number, position) for position in (0, 1)] == [
        ("image/png", picture) for picture in PICTURES
    ]
    for wrong in ((number, 2), ("2222-2222", 0)):
        with pytest.raises(RequestError, match="Nothing is served"):
            queue.photograph(*wrong)


def test_list_of_read_cases_calls_the_same_outcomes_contradictory_as_the_case_does(
    queue: ReadingQueue, answers: Any
) -> None:
    told = [one for length in range(4) for one in product((True, False, None), repeat=length)]
    for outcomes in told:
        number = add(queue, answers)
        queue.record_reading(number, READER, "agree", "", readings_seen=0)
        for seen, needs in enumerate(outcomes):
            queue.record_outcome(number, READER, needs, "not_yet" if needs is None else "consensus", seen)
    listed = {case.number: case.is_contradictory for case in queue.read_cases().cases}
    assert listed == {number: queue.find(number).contradictory for number in listed}
    assert len(listed) == len(told)
    assert sum(listed.values()) == 4 + 20  # of two outcomes, and of three


@pytest.mark.parametrize(
    "number", ["\x00", "2222-222\x00", "2222-2222\n", "2222-2222 ", "é", "\ud800", "2" * 9000]
)
def test_what_no_case_can_be_called_is_not_found(number: str, queue: ReadingQueue, answers: Any) -> None:
    for asked in (
        lambda: queue.find(number),
        lambda: queue.photograph(number, 0),
        lambda: queue.delete(number),
        lambda: queue.record_reading(number, READER, "agree", "", readings_seen=0),
        lambda: queue.record_outcome(number, READER, True, "consensus", 0),
        lambda: add(queue, answers, same_person_as=number),
    ):
        with pytest.raises(RequestError) as refused:
            asked()
        assert refused.value.code in ("not_found", "earlier_case_not_found")
    assert queue.waiting_cases()[0].count == 0


def test_readings_and_outcomes_are_appended_and_deleting_takes_everything(
    queue: ReadingQueue, answers: Any
) -> None:
    number, other = add(queue, answers), add(queue, answers)
    for forbidden in (
        lambda: queue.delete(number),
        lambda: queue.record_outcome(number, READER, True, "consensus", 0),
    ):
        with pytest.raises(RequestError, match="a person has read"):
            forbidden()
    queue.record_reading(number, READER, "override", "Größe 🔍 'quoted\" \\ \n second line", readings_seen=0)
    queue.record_reading(number, READER, "agree", "", readings_seen=1)
    queue.record_outcome(number, READER, None, "not_yet", 0)
    queue.record_outcome(number, READER, True, "histopathology", 1)
    case = queue.find(number)
    assert [one.decision for one in case.readings] == ["override", "agree"]
    assert case.readings[0].reason == "Größe 🔍 'quoted\" \\ \n second line"
    assert case.readings[0].actor == READER
    assert case.outcome is not None
    assert case.outcome.needs_in_person is True
    assert (
        [one.number for one in queue.waiting_cases()[0].cases],
        [one.number for one in queue.read_cases().cases],
    ) == (
        [other],
        [number],
    )
    queue.delete(number)
    assert [one.number for one in queue.waiting_cases()[0].cases] == [other]
    assert queue.read_cases().cases == []
    with queue._engine.connect() as connection:
        for table, left in (("readings", 0), ("outcomes", 0), ("photographs", 2), ("answers", 2)):
            assert connection.execute(text(f"SELECT count(*) FROM {table}")).scalar() == left


def both_at_once(act: Callable[[ReadingQueue], None], *queues: ReadingQueue) -> list[str]:
    """What each said: "recorded", or the code of its refusal."""
    together = Barrier(len(queues))

    def attempt(at: ReadingQueue) -> str:
        together.wait(10)
        try:
            act(at)
        except RequestError as refused:
            return refused.code
        return "recorded"

    with ThreadPoolExecutor(len(queues)) as readers:
        return list(readers.map(attempt, queues))


@pytest.fixture
def other(queue: ReadingQueue, database_address: str) -> Iterator[ReadingQueue]:
    """That of a second server with the same database; neither knows of the other."""
    opened = ReadingQueue(open_database(database_address), keep_days=30)
    yield opened
    opened.close()


def test_two_servers_of_one_queue_record_one_reading_and_one_outcome_of_what_both_showed(
    queue: ReadingQueue, other: ReadingQueue, answers: Any
) -> None:
    """The second to speak is told to look again, and what it said is not kept."""
    for turn in range(10):
        number = add(queue, answers)

        def read(at: ReadingQueue, case: str = number) -> None:
            at.record_reading(case, READER, "agree", "", readings_seen=0)

        def conclude(at: ReadingQueue, case: str = number) -> None:
            at.record_outcome(case, READER, at is queue, "consensus", outcomes_seen=0)

        for act, refusal in ((read, "read_meanwhile"), (conclude, "outcome_meanwhile")):
            assert sorted(both_at_once(act, queue, other)) == sorted([refusal, "recorded"]), turn
        found = queue.find(number)
        assert (len(found.readings), len(found.outcomes)) == (1, 1)
    with pytest.raises(RequestError) as refused:
        other.record_reading(number, READER, "override", "seen too late", readings_seen=0)
    assert refused.value.code == "read_meanwhile"
    other.record_reading(number, READER, "override", "seen again", readings_seen=1)
    assert [one.decision for one in queue.find(number).readings] == ["agree", "override"]


def test_case_is_not_deleted_with_what_another_server_of_its_queue_has_recorded_since(
    queue: ReadingQueue, other: ReadingQueue, answers: Any
) -> None:
    for turn in range(10):
        number = add(queue, answers)
        queue.record_reading(number, READER, "agree", "", readings_seen=0)

        def delete_or_conclude(at: ReadingQueue, case: str = number) -> None:
            if at is queue:
                at.delete(case, records_seen=1)
            else:
                at.record_outcome(case, READER, True, "consensus", outcomes_seen=0)

        said = sorted(both_at_once(delete_or_conclude, queue, other))
        found = queue.find_or_none(number)
        assert said == sorted(["recorded", "not_found" if found is None else "read_meanwhile"]), turn
        assert found is None or len(found.outcomes) == 1
    with pytest.raises(RequestError) as refused:
        queue.delete(number := add_read(queue, answers, other), records_seen=1)
    assert refused.value.code == "read_meanwhile"
    queue.delete(number, records_seen=2)
    assert queue.find_or_none(number) is None


def add_read(queue: ReadingQueue, answers: Any, other: ReadingQueue) -> str:
    """A case that was read at one server and then at another."""
    number = add(queue, answers)
    queue.record_reading(number, READER, "agree", "", readings_seen=0)
    other.record_reading(number, READER, "agree", "", readings_seen=1)
    return number


def test_case_whose_answer_this_version_cannot_read_is_first_and_hides_no_other(
    queue: ReadingQueue, database_address: str, answers: Any
) -> None:
    first, second, altered = (add(queue, answers) for _ in range(3))
    assert [case.number for case in queue.waiting_cases()[0].cases] == [first, second, altered]
    before = queue.pulse()
    with queue._engine.begin() as connection:
        last = {"number": altered}
        connection.execute(text("UPDATE cases SET priority_band = 4 WHERE number = :number"), last)
        changed = connection.execute(
            text(
                "UPDATE answers SET document = '{\"a_later_key\": 3, ' || substr(document, 2) "
                "WHERE language = 'en' AND case_id = (SELECT id FROM cases WHERE number = :number)"
            ),
            last,
        )
        assert changed.rowcount == 1
    fresh = ReadingQueue(open_database(database_address), keep_days=30)
    for one in (queue, fresh):
        part, pulse = one.waiting_cases()
        assert [case.number for case in part.cases] == [altered, first, second]
        assert [case.urgency.band for case in part.cases] == [1, 1, 1]
        assert [case.answer("de") for case in part.cases] == [None, answers[0], answers[0]]
        assert pulse == one.pulse() != before
        assert one.find(altered).urgency.band == 1
        assert one.find(altered).answer("en") is None
    fresh.close()


def test_lists_come_in_parts_that_hold_every_case_once(queue: ReadingQueue, answers: Any) -> None:
    numbers = [add(queue, answers) for _ in range(101)]
    parts = [queue.waiting_cases(part)[0] for part in (0, 1, 2, 999)]
    assert [(part.number, part.last, part.count) for part in parts] == [
        (number, 2, 101) for number in (1, 1, 2, 2)
    ]
    assert [case.number for part in parts[1:3] for case in part.cases] == numbers
    for number in numbers:
        queue.record_reading(number, READER, "agree", "", readings_seen=0)
    queue.record_outcome(numbers[0], READER, True, "histopathology", 0)
    queue.record_outcome(numbers[0], READER, None, "not_yet", 1)
    queue.record_outcome(numbers[1], READER, None, "not_yet", 0)
    read = [queue.read_cases(part) for part in (1, 2)]
    assert [case.number for part in read for case in part.cases] == [*numbers[1:], numbers[0]]
    assert read[1].first_case == 101
    assert read[1].cases[0].outcome == queue.find(numbers[0]).outcome
    assert queue.known_outcomes()["needs_in_person"] == (1, 101)
    size_bytes = sum(map(len, PICTURES))
    assert queue.read_cases_with_sizes() == [(number, size_bytes) for number in numbers]
    assert queue.waiting_cases()[0].cases == []


def test_what_nobody_waits_for_any_more_is_not_kept(queue: ReadingQueue, answers: Any) -> None:
    threads, resume, done = DatabaseThreads(timeout_s=0.1), Event(), Event()

    def add_slowly() -> None:
        resume.wait()
        try:
            add(queue, answers)
        finally:
            done.set()

    with pytest.raises(RequestError, match="nothing was stored"):
        asyncio.run(threads.run(add_slowly))
    resume.set()
    assert done.wait(10)
    threads.close()
    assert queue.waiting_cases()[0].count == 0


def test_server_that_takes_connections_and_says_nothing_is_given_up_in_time(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(tmp_path / ".s.PGSQL.5432"))
        silent.listen()
        began = time.monotonic()
        with pytest.raises(ConfigError, match="cannot be used"):
            open_database(f"postgresql://triage@/postgres?host={tmp_path}&connect_timeout=2")
        assert time.monotonic() - began < 4


def test_postgresql_gives_up_a_statement_in_time_unless_the_address_says_otherwise(postgresql: str) -> None:
    migrate_at(postgresql)
    said = []
    for more in ("", "&options=-c%20statement_timeout%3D7s"):
        engine = open_database(postgresql + more)
        with engine.connect() as connection:
            said.append(connection.exec_driver_sql("SHOW statement_timeout").scalar())
        engine.dispose()
    assert said == ["10s", "7s"]


@pytest.mark.parametrize("encoding", ["SQL_ASCII", "LATIN1"])
def test_database_that_cannot_hold_every_name_is_refused(encoding: str, cluster: str) -> None:
    # Debian makes clusters in SQL_ASCII where no locale is set.
    server = create_engine(cluster.replace("postgresql:", POSTGRESQL + ":"), isolation_level="AUTOCOMMIT")
    name = f"of_{encoding.lower()}"
    with server.connect() as connection:
        locale = "TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C'"
        connection.execute(text(f"CREATE DATABASE {name} ENCODING '{encoding}' {locale}"))
    server.dispose()
    address = cluster.replace("/postgres?", f"/{name}?")
    for use in (migrate_at, open_database):
        with pytest.raises(ConfigError, match=f"encoding {encoding}, expected UTF8"):
            use(address)


def test_times_are_read_whichever_date_style_the_database_has(postgresql: str, answers: Any) -> None:
    address = f"{postgresql}&options=-c%20datestyle%3DGerman"
    migrate_at(address)
    queue = ReadingQueue(open_database(address), keep_days=30)
    number = add(queue, answers)
    assert [case.number for case in queue.waiting_cases()[0].cases] == [number]
    queue.close()


def test_only_what_was_read_grows_too_old(queue: ReadingQueue, answers: Any) -> None:
    read, told, _ = (add(queue, answers) for _ in range(3))
    begin = queue.now()
    for number in (read, told):
        queue.record_reading(number, READER, "agree", "", readings_seen=0)
    queue.now = lambda: begin + timedelta(days=20)
    queue.record_outcome(told, READER, False, "follow_up", 0)
    queue.now = lambda: begin + timedelta(days=31)
    assert queue.expired_numbers() == [read]
    queue.now = lambda: begin + timedelta(days=5000)
    assert sorted(queue.expired_numbers()) == sorted([read, told])


def test_migrations_make_the_tables_that_the_program_describes(database_address: str) -> None:
    assert migrate_at(database_address) == (None, "0002")
    assert migrate_at(database_address) == ("0002", "0002")
    engine = open_database(database_address)
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), Base.metadata) == []
    engine.dispose()


def test_migration_that_fails_leaves_the_database_as_it_was(database_address: str) -> None:
    engine = create_engine(_parse_url(database_address))
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE outcomes (x INTEGER)"))  # in the way of the last table
    with pytest.raises(ConfigError):
        migrate_at(database_address)
    assert inspect(engine).get_table_names() == ["outcomes"]
    with engine.begin() as connection:
        connection.execute(text("DROP TABLE outcomes"))
    engine.dispose()
    assert migrate_at(database_address) == (None, "0002")


def test_tables_of_a_newer_version_are_refused_with_the_advice_to_install_it_and_left_as_they_are(
    database_address: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    migrate_at(database_address)
    engine = open_database(database_address)
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    engine.dispose()
    told = r"version 9999, newer than this program.*up to 0002; nothing was changed\. Install the version"
    for use in (open_database, migrate_at):
        with pytest.raises(ConfigError, match=told) as refused:
            use(database_address)
        assert "queue migrate" not in str(refused.value)
    monkeypatch.setenv("TRIAGE_READING_QUEUE", database_address)
    assert main(["queue", "migrate"]) == 2
    assert capsys.readouterr().err.startswith("ConfigError: The reading queue's tables are of version 9999")
    engine = create_engine(_parse_url(database_address))
    with engine.connect() as connection:
        assert connection.execute(text("SELECT version_num FROM alembic_version")).scalar() == "9999"
    engine.dispose()


def test_new_postgresql_database_waits_for_the_command(postgresql: str) -> None:
    with pytest.raises(ConfigError, match=r"version none, expected 0002.*triage-server queue migrate"):
        open_database(postgresql)


def make_tables_of(revision: str, address: str) -> None:
    """As the program did whose newest tables these were."""
    engine = create_engine(_parse_url(address))
    with engine.begin() as connection:
        config = _alembic_config()
        config.attributes["connection"] = connection
        command.upgrade(config, revision)
    engine.dispose()


def contents(address: str) -> dict[str, list[dict[str, Any]]]:
    """All rows of all tables but the version's, by column."""
    engine, tables = create_engine(_parse_url(address)), MetaData()
    tables.reflect(engine)
    with engine.connect() as connection:
        found = {
            table.name: [dict(row) for row in connection.execute(select(table)).mappings()]
            for table in tables.sorted_tables
            if table.name != "alembic_version"
        }
    engine.dispose()
    return found


def insert_case(address: str, number: str, answers: Any) -> None:
    """A case that was read, as a server with the first tables writes it."""
    engine, tables, at = create_engine(_parse_url(address)), MetaData(), datetime(2026, 1, 2, tzinfo=UTC)
    tables.reflect(engine)
    who = {"caller": READER.caller, "reader": READER.reader, "at": at}
    said = {"language": "de", "disposition": "needs_in_person", "priority_band": 1, "deadline_hours": 48.5}
    case = {"number": number, "person": number, "arrived_at": at, "caller": READER.caller, **said}
    with engine.begin() as connection:

        def insert(table: str, **row: Any) -> Any:
            return connection.execute(tables.tables[table].insert().values(**row))

        (key,) = insert("cases", **case, history='{"bleeding":true}').inserted_primary_key
        for answer in answers:
            insert("answers", case_id=key, language=answer.language, document=answer.model_dump_json())
        insert("photographs", case_id=key, position=0, media_type="image/png", data=PICTURES[0])
        insert("readings", case_id=key, decision="agree", reason="Größe 🔍", **who)
        insert("outcomes", case_id=key, needs_in_person=True, confirmed_by="consensus", **who)
    engine.dispose()


def test_migration_keeps_the_cases_of_the_first_tables_and_calls_none_of_them_drawn(
    database_address: str, answers: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    make_tables_of("0001", database_address)
    for number in ("2222-2222", "3333-3333"):
        insert_case(database_address, number, answers)
    before = contents(database_address)
    with pytest.raises(ConfigError, match=r"version 0001, expected 0002.*triage-server queue migrate"):
        open_database(database_address)
    assert contents(database_address) == before
    monkeypatch.setenv("TRIAGE_READING_QUEUE", database_address)
    assert main(["queue", "migrate"]) == 0
    assert capsys.readouterr().out == "the tables are of version 0002 (found 0001)\n"
    not_drawn = {"follow_up_share": 0.0, "drawn": False}
    assert contents(database_address) == before | {"cases": [row | not_drawn for row in before["cases"]]}
    # As by a server of the earlier version that still runs.
    insert_case(database_address, "4444-4444", answers)
    queue = ReadingQueue(open_database(database_address), keep_days=30, follow_up_share=1.0)
    numbers = ("2222-2222", "3333-3333", "4444-4444", add(queue, answers))
    found = [queue.find(number) for number in numbers]
    assert [(case.follow_up_share, case.drawn) for case in found] == [*[(0.0, False)] * 3, (1.0, True)]
    assert [len(case.readings) for case in found] == [1, 1, 1, 0]
    assert found[0].answers == found[3].answers == {one.language: one for one in answers}
    assert found[0].outcome is not None
    assert queue.photograph("2222-2222", 0) == ("image/png", PICTURES[0])
    assert queue.drawn_outcomes() == (0, 0)
    queue.close()


def test_new_sqlite_file_is_made_for_its_owner_alone_and_brought_up_to_date(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "queue.sqlite"
    engine = open_database(str(path))
    with engine.connect() as connection:
        pragmas = ("journal_mode", "foreign_keys", "secure_delete")
        found = [connection.exec_driver_sql(f"PRAGMA {name}").scalar() for name in pragmas]
    engine.dispose()
    assert found == ["wal", 1, 1]
    assert {file.stat().st_mode & 0o777 for file in tmp_path.glob("queue.sqlite*")} == {0o600}
    assert main(["queue", "migrate", "--database", str(path)]) == 0
    assert capsys.readouterr().out == "the tables are of version 0002\n"


@pytest.mark.parametrize(
    "wrong", ["mysql://u:pw-secret@h/d", "postgresql+asyncpg://u:pw-secret@localhost:1/d", "://"]
)
def test_database_that_cannot_be_used_is_said_without_its_password(wrong: str) -> None:
    with pytest.raises(ConfigError) as caught:
        open_database(wrong)
    assert "pw-secret" not in str(caught.value)


def test_driver_that_is_missing_is_said_with_the_command_that_installs_it() -> None:
    code = (
        "import sys; sys.modules['psycopg'] = None\n"
        "from triage_server.cli import main\n"
        "sys.exit(main(['queue', 'migrate', '--database', 'postgresql://u:secret@h/n']))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert "install the extra [queue]; in a checkout: pip install '.[queue]'" in done.stderr
    assert "secret" not in done.stderr


def test_what_is_no_database_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    file = tmp_path / "letter"
    file.write_text("Dear colleague, " * 100)
    with pytest.raises(ConfigError, match="and that it is a database"):
        open_database(str(file))
    assert file.read_text() == "Dear colleague, " * 100
    with pytest.raises(ConfigError, match="cannot be opened"):
        open_database(str(tmp_path / "nowhere" / "queue.sqlite"))
    link = tmp_path / "link"
    link.symlink_to(file)
    with pytest.raises(ConfigError, match="cannot be opened"):
        open_database(str(link))


@pytest.mark.skipif(not hasattr(resource, "prlimit"), reason="needs prlimit, which Linux has")
def test_full_disk_keeps_nothing_of_a_case_and_passes_by_itself(tmp_path: Path, answers: Any) -> None:
    queue = ReadingQueue(open_database(str(tmp_path / "queue.sqlite")), keep_days=30)
    number = add(queue, answers)
    largest = max(path.stat().st_size for path in tmp_path.iterdir())
    unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (largest + 2000, unlimited[1]))
    try:
        with pytest.raises(RequestError, match="nothing was stored"):
            _add_many(queue, answers)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, unlimited)
    kept = [queue.find(case.number) for case in queue.waiting_cases()[0].cases]
    assert kept[0].number == number
    assert all(len(case.photographs) == 2 and len(case.answers or ()) == 2 for case in kept)
    add(queue, answers)
    assert queue.waiting_cases()[0].count == len(kept) + 1
    queue.close()


def _add_many(queue: ReadingQueue, answers: Any) -> None:
    for _ in range(20):
        add(queue, answers)


def test_killed_process_leaves_whole_cases_only(tmp_path: Path, answers: Any) -> None:
    """A transaction that was open when the process died is not there."""
    database_address = str(tmp_path / "queue.sqlite")
    first = ReadingQueue(open_database(database_address), keep_days=30)
    number = add(first, answers)
    first.close()
    pid = os.fork()
    if pid == 0:  # the child dies within a transaction
        connection = sqlite3.connect(database_address)
        connection.execute("DELETE FROM photographs")
        os._exit(9)
    os.waitpid(pid, 0)
    again = ReadingQueue(open_database(database_address), keep_days=30)
    assert again.photograph(number, 0)[1] == PICTURES[0]
    again.close()
