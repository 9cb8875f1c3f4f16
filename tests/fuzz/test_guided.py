"""Bytes chosen by what they reach: the readers that they go to, and that a bug would be found."""

import json
import random
from pathlib import Path
from typing import get_args

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from d2m_node.network import fast_lane
from d2m_node.roles.room import Room
from protocol.errors import InvalidMessage
from protocol.wire.codec import decode_message
from protocol.wire.messages import AnyMessage
from tests.fuzz import command
from tests.fuzz.guided import lanes, planted, rooms
from tests.fuzz.guided.forms import Form, change
from tests.fuzz.guided.messages import MESSAGES, prefix
from tests.fuzz.guided.reader import Reader, list_seeds, run_input
from tests.fuzz.guided.readers import READERS
from tests.fuzz.guided.run import GuidedReport, is_available, run_guided
from tests.fuzz.guided.settings import GROWTH_BYTES, TALLY

needs_atheris = pytest.mark.skipif(not is_available(), reason="atheris is not on this platform")


def quiet(_line: str) -> None:
    """Say nothing."""


@needs_atheris
def test_inputs_chosen_by_what_they_reach_break_no_reader(tmp_path: Path) -> None:
    report = run_guided(tmp_path, runs=3000, seed=1, say=quiet)
    assert report.find_harm() == [], report.explanation
    assert report.runs == 3000
    assert report.readers.keys() == {reader.name for reader in READERS}
    assert report.corpus_count > len(list_seeds(READERS)), "nothing new was reached"


@needs_atheris
def test_a_bug_that_only_few_bytes_reach_is_found_and_its_input_kept(tmp_path: Path) -> None:
    report = run_guided(tmp_path, runs=200_000, seed=1, say=quiet, readers=planted.__name__)
    assert report.finding is not None, (tmp_path / TALLY).read_text()
    assert report.find_harm() == [f"planted does not stand {report.finding}"]
    assert "IndexError" in report.explanation
    assert report.runs < 200_000
    with pytest.raises(IndexError):
        run_input(planted.READERS, report.finding.read_bytes())


@needs_atheris
def test_a_run_goes_on_with_what_an_earlier_one_reached(tmp_path: Path) -> None:
    first = run_guided(tmp_path, runs=1000, seed=1, say=quiet, readers=planted.__name__)
    assert first.corpus_count > len(list_seeds(planted.READERS))
    lines: list[str] = []
    run_guided(tmp_path, runs=1000, seed=2, say=lines.append, readers=planted.__name__)
    begun_with = int(lines[0].split()[6])
    assert begun_with >= first.corpus_count


@pytest.mark.parametrize("reader", READERS, ids=lambda reader: reader.name)
def test_each_reader_stands_its_seeds_and_takes_one_of_them(reader: Reader) -> None:
    choice = bytes([READERS.index(reader)])
    results = [run_input(READERS, choice + seed) for seed in reader.seeds]
    assert (reader, True) in results


@pytest.mark.parametrize("data", [b"", b"\xff" * 3000, b"\x91" * 3000, b"[" * 3000])
def test_each_reader_stands_bytes_that_are_nothing(data: bytes) -> None:
    for index, reader in enumerate(READERS):
        assert run_input(READERS, bytes([index]) + data)[0] is reader


@pytest.mark.parametrize(
    ("reader", "place", "name"),
    [(lanes.READERS[0], fast_lane, "_deliver"), (rooms.READERS[0], Room, "validate")],
    ids=["multiplexer", "gossip"],
)
def test_an_error_that_the_node_would_survive_is_a_finding(
    monkeypatch: pytest.MonkeyPatch, reader: Reader, place: object, name: str
) -> None:
    def fail(*_: object) -> None:
        raise IndexError("planted")

    monkeypatch.setattr(place, name, fail)
    with pytest.raises(IndexError, match="planted"):
        reader.read(reader.seeds[0])


def test_a_bug_behind_a_refusal_is_a_finding() -> None:
    def refuse(data: bytes) -> None:
        try:
            data.no_such_method()  # type: ignore[attr-defined]
        except AttributeError as exc:
            raise InvalidMessage("stream broken") from exc

    with pytest.raises(AttributeError, match="no_such_method"):
        run_input([Reader("refuses", refuse, (InvalidMessage,))], b"\x00")


def test_no_two_readers_share_a_name() -> None:
    assert len({reader.name for reader in READERS}) == len(READERS)


def test_every_message_is_among_the_seeds() -> None:
    assert {type(one) for one in MESSAGES} == set(get_args(AnyMessage))


def turn_round(data: bytes) -> bytes:
    return data[::-1]


@given(st.integers(0, 2**32), st.sampled_from(MESSAGES))
def test_a_changed_frame_is_as_long_as_it_says(seed: int, message: AnyMessage) -> None:
    frame = prefix(message)
    changed = change(frame, Form.FRAMES, random.Random(seed), turn_round)
    while changed:
        size = int.from_bytes(changed[:4], "big")
        assert len(changed) >= 4 + size
        changed = changed[4 + size :]


def test_much_of_what_is_changed_within_its_form_can_still_be_read() -> None:
    dice, frame = random.Random(1), prefix(MESSAGES[0])
    assert (
        sum(is_message(change(frame, Form.FRAMES, dice, turn_round)[4:]) for _ in range(200)) > 50
    )


def is_message(data: bytes) -> bool:
    try:
        decode_message(data)
    except InvalidMessage:
        return False
    return True


@pytest.mark.parametrize("form", Form)
@given(data=st.binary(max_size=60), seed=st.integers(0, 2**32))
def test_any_bytes_can_be_changed_as_any_form(form: Form, data: bytes, seed: int) -> None:
    assert isinstance(change(data, form, random.Random(seed), turn_round), bytes)


def test_a_process_that_ended_or_grew_is_harm() -> None:
    assert GuidedReport(1, warm_bytes=1, end_bytes=1).find_harm() == []
    ended = GuidedReport(1, code=-9)
    assert ended.find_harm() == ["the process ended with code -9"]
    grown = GuidedReport(1, warm_bytes=1, end_bytes=GROWTH_BYTES + 2)
    assert grown.find_harm() == ["memory grew"]


def test_the_command_says_where_atheris_is_when_it_is_not_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "is_available", lambda: False)
    result = CliRunner().invoke(command.fuzz, ["--guided", "1000", "--dir", str(tmp_path)])
    assert result.exit_code == 2
    assert "--guided: atheris is not installed; it is for" in result.output


def test_the_command_runs_an_input_again(tmp_path: Path) -> None:
    path = tmp_path / "input"
    path.write_bytes(list_seeds(READERS)[0])
    result = CliRunner().invoke(command.fuzz, ["--input", str(path)])
    assert (result.exit_code, result.output) == (0, "message: taken, as it should be\n")


def test_the_command_ends_with_code_1_and_says_how_to_see_a_finding_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    finding = tmp_path / "crash-1"

    def find(_folder: Path, **_options: object) -> GuidedReport:
        return GuidedReport(
            1, code=77, finding=finding, reader="message", explanation="IndexError: no byte"
        )

    monkeypatch.setattr(command, "is_available", lambda: True)
    monkeypatch.setattr(command, "run_guided", find)
    result = CliRunner().invoke(command.fuzz, ["--guided", "1000", "--dir", str(tmp_path)])
    assert result.exit_code == 1
    assert f"message does not stand {finding}" in result.output
    assert "IndexError: no byte" in result.output
    assert f"scripts/fuzz-network --input {finding}" in result.output
    told = json.loads((tmp_path / "report.json").read_text())
    assert told["harm"] == [f"message does not stand {finding}"]
