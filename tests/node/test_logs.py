"""Logs show what happened and never a secret."""

import json
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from d2m_node.errors import UserError
from d2m_node.logs import configure_logs
from d2m_node.settings import LogSettings


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


def read_events(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


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


def test_the_console_format_goes_to_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs(LogSettings())
    structlog.get_logger("roles").info("digest_revealed", job=3)
    captured = capsys.readouterr()
    assert "digest_revealed" in captured.err
    assert captured.out == ""


def test_a_log_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"logs\.file"):
        configure_logs(LogSettings(file=tmp_path / "file" / "node.log"))
