"""Logs show what happened, say what it is about, and never show a secret."""

import json
import logging
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog
import trio

from d2m_node.errors import UserError
from d2m_node.logs import configure_logs, current_log_scope, log_scope
from d2m_node.redaction import hide_secrets_in_text
from d2m_node.roles import boundary
from d2m_node.settings import LogSettings
from protocol.errors import ProtocolError
from protocol.types import JobId
from tests.support.market import Market, Node


@pytest.fixture(autouse=True)
def restored_logging() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    root.handlers.clear()
    yield
    for handler in root.handlers:
        handler.close()
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.captureWarnings(capture=False)
    structlog.reset_defaults()


def read_events(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture
def log_file(tmp_path: Path) -> Path:
    configure_logs(LogSettings(file=tmp_path / "node.log"))
    return tmp_path / "node.log"


FULL_DISK = """
import resource, sys
from pathlib import Path
import structlog
from d2m_node.logs import configure_logs
from d2m_node.settings import LogSettings

_, most = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (2000, most))  # as a full disk, for this process alone
configure_logs(LogSettings(file=Path(sys.argv[1])))
for number in range(100):
    structlog.get_logger("d2m_node").info("before", number=number)
resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
for number in range(2):
    structlog.get_logger("d2m_node").info("after", number=number)
"""


def test_a_full_disk_is_told_in_one_line_and_the_node_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "node.log"
    command = [sys.executable, "-c", FULL_DISK, str(path)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 0
    lines = ended.stderr.splitlines()
    told = [line.partition(f"logs.file: {path}: ")[2] for line in lines if "logs.file" in line]
    assert len(told) == 2
    assert told[0] == "File too large; until it can be written, lines are lost to it"
    assert told[1].startswith("written again")
    assert "Traceback" not in ended.stderr
    assert len(lines) == 102 + len(told)
    assert "after" in path.read_text()


def test_events_are_lines_of_json_in_the_file(tmp_path: Path) -> None:
    configure_logs(LogSettings(format="json", file=tmp_path / "node.log"))
    structlog.get_logger("roles").info("digest_revealed", job=3, digest=b"\x01\x02")
    (event,) = read_events(tmp_path / "node.log")
    assert (event["event"], event["job"], event["digest"]) == ("digest_revealed", 3, "0x0102")
    assert event["level"] == "info"
    assert "timestamp" in event


def test_secrets_are_hidden_however_deep(tmp_path: Path) -> None:
    configure_logs(LogSettings(format="json", file=tmp_path / "node.log"))
    vote = {"salt": b"\x05", "inner": {"api_token": "hush"}}
    structlog.get_logger("roles").info("oops", password="hush", vote=vote, round=1)
    text = (tmp_path / "node.log").read_text()
    assert "hush" not in text
    assert "x05" not in text
    assert vote["salt"] == b"\x05"
    assert read_events(tmp_path / "node.log")[0]["round"] == 1


def test_the_level_holds_back_what_is_below_it(tmp_path: Path) -> None:
    configure_logs(LogSettings(level="warning", format="json", file=tmp_path / "node.log"))
    structlog.get_logger("roles").info("quiet")
    structlog.get_logger("roles").warning("loud")
    assert [event["event"] for event in read_events(tmp_path / "node.log")] == ["loud"]


def test_libraries_speak_only_when_something_is_wrong(tmp_path: Path) -> None:
    configure_logs(LogSettings(level="debug", format="json", file=tmp_path / "node.log"))
    logging.getLogger("libp2p.network").info("chatter")
    logging.getLogger("libp2p.network").error("broken")
    assert [event["event"] for event in read_events(tmp_path / "node.log")] == ["broken"]


def test_the_file_holds_json_whatever_people_read(
    log_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    structlog.get_logger("roles").info("digest_revealed", job=3)
    assert read_events(log_file)[0]["job"] == 3


def test_the_file_is_for_its_owner_alone_also_if_it_was_there_before(tmp_path: Path) -> None:
    path = tmp_path / "node.log"
    path.touch(mode=0o644)
    configure_logs(LogSettings(file=path))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_files_are_rotated_and_their_number_is_bounded(tmp_path: Path) -> None:
    path = tmp_path / "node.log"
    configure_logs(LogSettings(file=path, file_bytes=64 * 1024, files_kept=3))
    for number in range(400):
        structlog.get_logger("roles").info("filler", number=number, text="x" * 1000)
    names = sorted(one.name for one in tmp_path.iterdir())
    assert names == ["node.log", "node.log.1", "node.log.2"]
    assert all(one.stat().st_size <= 64 * 1024 for one in tmp_path.iterdir())
    assert all(stat.S_IMODE(one.stat().st_mode) == 0o600 for one in tmp_path.iterdir())
    assert read_events(path)[-1]["number"] == 399


def test_the_console_format_goes_to_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs(LogSettings(file=None))
    structlog.get_logger("roles").info("digest_revealed", job=3)
    captured = capsys.readouterr()
    assert "digest_revealed" in captured.err
    assert captured.out == ""


def test_a_log_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"logs\.file"):
        configure_logs(LogSettings(file=tmp_path / "file" / "node.log"))


async def test_a_scope_reaches_tasks_and_threads_that_start_in_it(log_file: Path) -> None:
    log = structlog.get_logger("roles")

    async def work() -> None:
        log.info("in_a_task")
        await trio.to_thread.run_sync(lambda: log.info("in_a_thread"))

    with log_scope(role="cone", job=3):
        async with trio.open_nursery() as nursery:
            with log_scope(round_index=2, peer=b"\x12\x20"):
                nursery.start_soon(work)
            log.info("beside_it")
    log.info("after_it")
    lines = {one["event"]: one for one in read_events(log_file)}
    for name in ("in_a_task", "in_a_thread"):
        found = {key: lines[name][key] for key in ("role", "job", "round", "peer")}
        assert found == {"role": "cone", "job": 3, "round": 2, "peer": "0x1220"}
    assert "round" not in lines["beside_it"]
    assert lines["beside_it"]["job"] == 3
    assert "job" not in lines["after_it"]


async def test_a_task_that_many_share_forgets_who_started_it(log_file: Path) -> None:
    async def share() -> None:
        with log_scope(job=3, is_new_task=True):
            structlog.get_logger("roles").info("shared")

    with log_scope(role="cone", job=3, round_index=2):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(share)
        assert current_log_scope() == {"role": "cone", "job": 3, "round": 2}
    (line,) = read_events(log_file)
    assert line["job"] == 3
    assert "role" not in line
    assert "round" not in line


async def test_what_a_role_logs_in_a_job_says_so(
    log_file: Path, monkeypatch: pytest.MonkeyPatch, nursery: trio.Nursery
) -> None:
    # A logger keeps how it was set up when it was first used: not the module's, for other tests.
    monkeypatch.setattr(boundary, "log", structlog.get_logger("roles"))

    async def work() -> None:
        raise ProtocolError("no")

    post = Node(Market(), "seller").post("seller", nursery)
    await boundary.run_to_failure(post, JobId(7), work)
    (line,) = read_events(log_file)
    assert (line["event"], line["role"], line["job"]) == ("job_failed", "seller", 7)


SECRET = "hush-hush-0123456789"


@pytest.mark.parametrize(
    "fields",
    [
        {"authorization": f"Bearer {SECRET}"},
        {"header": f"Authorization: Bearer {SECRET}"},
        {"headers": [("authorization", f"Bearer {SECRET}")]},
        {"headers": {"Authorization": SECRET}},
        {"error": f"https://user:{SECRET}@chain.example/rpc does not answer"},
        {"error": f"GET /rpc?token={SECRET}&x=1"},
        {"error": f'{{"password": "{SECRET}"}}'},
        {"outer": [{"inner": ({"api_key": SECRET},)}]},
        {"bearer_token": SECRET.encode()},
        {"session_cookie": SECRET},
    ],
)
def test_no_field_and_no_text_shows_a_secret(
    capsys: pytest.CaptureFixture[str], log_file: Path, fields: dict[str, object]
) -> None:
    structlog.get_logger("rpc").info("call", other=5, **fields)
    for text in (log_file.read_text(), capsys.readouterr().err):
        assert SECRET not in text
        assert SECRET.encode().hex() not in text
        assert "<hidden>" in text
    assert read_events(log_file)[0]["other"] == 5


@pytest.mark.parametrize("kind", ["json", "console"])
def test_a_traceback_shows_no_secret(
    log_file: Path, capsys: pytest.CaptureFixture[str], kind: Any
) -> None:
    configure_logs(LogSettings(format=kind, file=log_file))
    password = SECRET
    try:
        raise ValueError(f"refused: Authorization: Bearer {password}")
    except ValueError:
        structlog.get_logger("rpc").exception("call_failed")
    for text in (log_file.read_text(), capsys.readouterr().err):
        assert "ValueError" in text
        assert SECRET not in text


def test_hostile_text_does_not_make_a_line_take_for_ever() -> None:
    for text in ("-a" * 50_000, "://a:" * 20_000, "bearer " * 20_000, "x" * 100_000, "=" * 100_000):
        assert hide_secrets_in_text(text) == text


def test_words_about_secrets_are_no_secrets(log_file: Path) -> None:
    told = "the password file is missing; a bearer token is needed; job 3: price=5"
    structlog.get_logger("rpc").info("call", told=told)
    assert read_events(log_file)[0]["told"] == told


def test_a_library_that_logs_a_token_does_not_show_it(log_file: Path) -> None:
    logging.getLogger("hypercorn.error").error("header %s", f"Bearer {SECRET}")
    assert SECRET not in log_file.read_text()
