"""Tokens: made when needed, renewed in time, void when they should be, unreadable to others."""

from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from d2m_node.client import Scope
from d2m_node.errors import UserError
from d2m_node.rpc.tokens import OVERLAP_SECONDS, REVIEW_SECONDS, Tokens

DAY = 24 * 3600


class Clock:
    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def open_tokens(folder: Path, clock: Clock) -> Tokens:
    tokens = Tokens(folder, 30 * DAY, now=clock)
    tokens.open()
    return tokens


def read(folder: Path, scope: Scope = Scope.READ) -> str:
    return (folder / scope).read_text().strip()


def test_each_scope_has_a_token_of_its_own_that_survives_a_restart(
    tmp_path: Path, clock: Clock
) -> None:
    open_tokens(tmp_path, clock)
    texts = [read(tmp_path, scope) for scope in Scope]
    again = open_tokens(tmp_path, clock)
    assert [read(tmp_path, scope) for scope in Scope] == texts
    assert [again.scope_of(text) for text in texts] == list(Scope)
    assert again.scope_of(texts[0][:-1]) is None
    assert again.scope_of("") is None


def test_a_token_is_replaced_before_it_expires_and_void_after(tmp_path: Path, clock: Clock) -> None:
    tokens = open_tokens(tmp_path, clock)
    first = read(tmp_path)
    clock.now += 30 * DAY - OVERLAP_SECONDS - 1
    tokens.review()
    assert read(tmp_path) == first
    clock.now += 2
    tokens.review()
    second = read(tmp_path)
    assert second != first
    assert tokens.scope_of(first) is tokens.scope_of(second) is Scope.READ
    clock.now += OVERLAP_SECONDS
    assert tokens.scope_of(first) is None
    assert tokens.scope_of(second) is Scope.READ


def test_an_expired_token_opens_nothing_even_if_nobody_rotated_it(
    tmp_path: Path, clock: Clock
) -> None:
    tokens = open_tokens(tmp_path, clock)
    clock.now += 31 * DAY
    assert tokens.scope_of(read(tmp_path)) is None


async def test_a_token_that_cannot_be_renewed_now_is_renewed_later(
    tmp_path: Path, clock: Clock, autojump_clock: MockClock
) -> None:
    """A full disk must not end a node that votes for its stake."""
    folder = tmp_path / "tokens"
    tokens = open_tokens(folder, clock)
    first = read(folder)
    folder.rename(tmp_path / "gone")
    clock.now += 31 * DAY
    with trio.move_on_after(2.5 * REVIEW_SECONDS):
        await tokens.run()
    assert tokens.scope_of(first) is None
    folder.mkdir()
    with trio.move_on_after(1.5 * REVIEW_SECONDS):
        await tokens.run()
    assert tokens.scope_of(read(folder)) is Scope.READ


def test_a_restart_replaces_what_expired_meanwhile(tmp_path: Path, clock: Clock) -> None:
    open_tokens(tmp_path, clock)
    first = read(tmp_path)
    clock.now += 31 * DAY
    tokens = open_tokens(tmp_path, clock)
    assert tokens.scope_of(first) is None
    assert tokens.scope_of(read(tmp_path)) is Scope.READ


def test_a_rotated_token_counts_for_a_while_and_a_revoked_one_does_not(
    tmp_path: Path, clock: Clock
) -> None:
    tokens = open_tokens(tmp_path, clock)
    first, other = read(tmp_path), read(tmp_path, Scope.BUY)
    tokens.rotate([Scope.READ])
    assert tokens.scope_of(first) is Scope.READ
    second = read(tmp_path)
    tokens.rotate([Scope.READ], revoke=True)
    assert tokens.scope_of(first) is None
    assert tokens.scope_of(second) is None
    assert tokens.scope_of(other) is Scope.BUY


def test_a_token_that_others_may_have_read_is_not_used(tmp_path: Path, clock: Clock) -> None:
    open_tokens(tmp_path, clock)
    (tmp_path / "buy").chmod(0o640)
    with pytest.raises(UserError, match=r"buy has mode 640, .*delete it"):
        open_tokens(tmp_path, clock)


@pytest.mark.parametrize("text", ["", "hunter2", "d2m_admin_9999999999_" + "A" * 43])
def test_a_file_that_holds_something_else_is_named(tmp_path: Path, clock: Clock, text: str) -> None:
    open_tokens(tmp_path, clock)
    (tmp_path / "read").write_text(text)
    with pytest.raises(UserError, match="holds no read token; delete it"):
        open_tokens(tmp_path, clock)


def test_a_link_in_place_of_a_token_is_not_followed(tmp_path: Path, clock: Clock) -> None:
    open_tokens(tmp_path / "tokens", clock)
    (tmp_path / "tokens" / "read").rename(tmp_path / "elsewhere")
    (tmp_path / "tokens" / "read").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UserError, match=r"rpc\.tokens: .*read"):
        open_tokens(tmp_path / "tokens", clock)


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path, clock: Clock) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"rpc\.tokens: .*file/tokens: Not a directory"):
        open_tokens(tmp_path / "file" / "tokens", clock)
