"""Sequence numbers never go back, whatever the clock does between two runs."""

import time
from pathlib import Path

import pytest

from d2m_node.storage.database import open_store
from d2m_node.storage.marks import RESERVED

SECOND = 10**9


async def test_sequence_numbers_begin_at_the_clock(tmp_path: Path) -> None:
    async with open_store(tmp_path) as store:
        assert abs(await store.marks.reserve_sequence() - time.time_ns()) < 60 * SECOND


@pytest.mark.parametrize("jump", [-(10**9) * SECOND, -1, 0, 1, 2**63])
async def test_a_clock_that_jumps_repeats_no_sequence_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, jump: int
) -> None:
    now = time.time_ns()
    monkeypatch.setattr(time, "time_ns", lambda: now)
    async with open_store(tmp_path) as store:
        first = await store.marks.reserve_sequence()
    monkeypatch.setattr(time, "time_ns", lambda: now + jump)
    async with open_store(tmp_path) as store:
        second = await store.marks.reserve_sequence()
        third = await store.marks.reserve_sequence()
    assert first + RESERVED <= second
    assert second + RESERVED <= third < 2**63
