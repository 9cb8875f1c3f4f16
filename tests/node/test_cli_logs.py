"""`d2m-node logs` shows what was written, whether or not the node runs, across rotation."""

import json
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from d2m_node.cli import run_command
from d2m_node.errors import UserError
from d2m_node.log_files import LogFilter, LogLine, LogReader, follow_lines, read_last_lines

ALL = LogFilter()


def write(path: Path, *events: dict[str, object]) -> None:
    now = datetime.now(UTC)
    with path.open("a") as file:
        for event in events:
            file.write(json.dumps({"timestamp": now.isoformat(), "level": "info"} | event) + "\n")


def append(path: Path, text: str) -> None:
    with path.open("a") as file:
        file.write(text)


def rotate(path: Path) -> None:
    for number in range(8, 0, -1):
        older = path.with_name(f"{path.name}.{number}")
        if older.exists():
            older.rename(path.with_name(f"{path.name}.{number + 1}"))
    path.rename(path.with_name(f"{path.name}.1"))


def names(lines: list[LogLine]) -> list[object]:
    return [line.fields and line.fields["event"] for line in lines]


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "node.log"


@pytest.fixture
def folder(log: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for variable in [one for one in os.environ if one.startswith("D2M_")]:
        monkeypatch.delenv(variable)
    return log.parent


def show(folder: Path, *arguments: str) -> int:
    return run_command(["--data-dir", str(folder), "logs", *arguments])


def test_the_last_lines_come_from_all_files_in_order(log: Path) -> None:
    for number in range(12):
        write(log, {"event": f"e{number}"})
        rotate(log)
    write(log, {"event": "newest"})
    assert names(read_last_lines(log, ALL, 4)) == ["e9", "e10", "e11", "newest"]
    assert len(read_last_lines(log, ALL, 100)) == 10, "nine old files are numbered, and the new one"
    assert read_last_lines(log, ALL, 0) == []


def test_lines_are_chosen_by_job_role_level_and_time(log: Path) -> None:
    now = datetime.now(UTC)
    old = (now - timedelta(hours=3)).isoformat()
    write(
        log,
        {"event": "a", "job": 1, "role": "cone"},
        {"event": "b", "job": 12, "role": "seller", "level": "warning"},
        {"event": "c", "timestamp": old, "level": "error"},
    )
    append(log, "no event at all\n")
    assert names(read_last_lines(log, LogFilter(job=1), 9)) == ["a"]
    assert names(read_last_lines(log, LogFilter(role="seller"), 9)) == ["b"]
    assert names(read_last_lines(log, LogFilter(level="warning"), 9)) == ["b", "c"]
    since = LogFilter(since=now - timedelta(hours=1))
    assert names(read_last_lines(log, since, 9)) == ["a", "b"]
    assert read_last_lines(log, ALL, 9)[-1] == LogLine("no event at all", None)


def test_reading_goes_on_across_rotations_and_loses_nothing(log: Path) -> None:
    write(log, {"event": "before"})
    with LogReader(log) as reader:
        assert names(list(reader)) == ["before"]
        assert list(reader) == []
        write(log, {"event": "same file"})
        rotate(log)
        write(log, {"event": "a whole file in between"})
        rotate(log)
        log.touch()
        assert names(list(reader)) == ["same file", "a whole file in between"]
        write(log, {"event": "new file"})
        assert names(list(reader)) == ["new file"]


def test_what_was_deleted_meanwhile_is_left_out(log: Path) -> None:
    write(log, {"event": "oldest"})
    with LogReader(log) as reader:
        assert names(list(reader)) == ["oldest"]
        rotate(log)
        log.with_name("node.log.1").unlink()
        write(log, {"event": "newest"})
        assert names(list(reader)) == ["newest"]


def test_a_line_is_shown_once_it_is_whole(log: Path) -> None:
    log.write_text('{"event": "ha')
    with LogReader(log) as reader:
        assert list(reader) == []
        append(log, 'lf"}\n')
        assert [line.fields for line in reader] == [{"event": "half"}]


def test_a_file_that_is_not_there_yet_is_waited_for(log: Path) -> None:
    with LogReader(log, is_patient=True) as reader:
        assert list(reader) == []
        write(log, {"event": "first"})
        assert names(list(reader)) == ["first"]


def test_following_shows_the_last_lines_first(log: Path) -> None:
    write(log, {"event": "a"}, {"event": "b"}, {"event": "c"})
    lines = follow_lines(log, ALL, 2)
    assert names([next(lines), next(lines)]) == ["b", "c"]
    write(log, {"event": "d"})
    assert names([next(lines)]) == ["d"]


def test_without_a_log_the_reason_is_one_line(
    folder: Path, log: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(UserError, match=r"no log; the node has not run yet"):
        read_last_lines(log, ALL, 5)
    assert show(folder) == 3
    assert show(folder, "--set", "logs.file=") == 3
    assert show(folder, "--since", "yesterday") == 2
    lines = capsys.readouterr().err.splitlines()
    assert "node has not run yet" in lines[0]
    assert "the settings name no file" in lines[1]
    assert "'yesterday' is neither like 10m" in lines[-1]


def test_people_read_time_level_event_and_fields(
    folder: Path, log: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(log, {"event": "job_failed", "job": 3, "timestamp": "2026-01-31T12:00:00.123456Z"})
    assert show(folder) == 0
    assert capsys.readouterr().out == "2026-01-31 12:00:00.123 info     job_failed  job=3\n"


def test_what_a_peer_made_us_write_does_not_steer_the_terminal(
    folder: Path, log: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(log, {"event": "peer_banned", "reason": "\x1b]0;owned\x07\x9b31m\nfake line"})
    append(log, "\x1b[31mraw\n")
    assert show(folder) == 0
    out = capsys.readouterr().out
    assert not set("\x1b\x07\x9b") & set(out)
    assert len(out.splitlines()) == 2


def test_json_is_what_the_file_holds(
    folder: Path, log: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(log, {"event": "a", "job": 1}, {"event": "b", "job": 2})
    assert show(folder, "--json", "--job", "2", "--since", "5m") == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert json.loads(line)["event"] == "b"


def test_no_settings_are_needed_to_read_a_log(
    folder: Path, log: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "config.toml").write_text('[logs]\nfile = "other.log"\n')
    write(folder / "other.log", {"event": "elsewhere"})
    assert show(folder) == 0
    assert "elsewhere" in capsys.readouterr().out
