"""`d2m-node status` as an operator reads it, and what a job waits for."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio

from d2m_node import cli
from d2m_node.cli.output import round_wei, shorten_hex
from d2m_node.measures import Reach, Reachability, Transfer
from d2m_node.ports import DialFailure, PeerStatus, PrivateTraining
from d2m_node.privacy_ledger import TRAININGS
from protocol.activity import describe_activity, find_roles
from protocol.earnings import Role
from protocol.job import JobPhase, JobState
from protocol.market import MarketState
from protocol.stakes import Stake
from protocol.types import Address, BlockNumber, Digest, JobId, Wei
from tests.protocol.test_earnings import SETTLED, applied
from tests.support.rpc import (
    ACCOUNT,
    QUIET,
    QUIET_NETWORK,
    FakeChain,
    FakeFacts,
    FakeNode,
    serve_fake_node,
)
from tests.support.settled_job import BUYER, CONES, SELLERS

TERMINAL_COLUMNS = 80


async def show(node: FakeNode, folder: Path, capsys: Any, command: str = "status") -> str:
    async with serve_fake_node(node, folder / "rpc.sock"):
        capsys.readouterr()
        code = await trio.to_thread.run_sync(
            lambda: cli.run_command(["--data-dir", str(folder), command])
        )
    assert code == 0
    return str(capsys.readouterr().out)


def with_account_as_cone() -> JobState:
    job = applied(replace(SETTLED, phase=JobPhase.SETTLING, settled=None))
    first = replace(job.cones[0], account=ACCOUNT)
    cones = (first, *job.cones[1:])
    return replace(job, cones=cones, cone_applications=cones)


async def test_a_status_tells_an_operator_what_matters(tmp_path: Path, capsys: Any) -> None:
    job = with_account_as_cone()
    state = MarketState(
        block_number=BlockNumber(90),
        jobs={job.job_id: job},
        stakes={
            ACCOUNT: Stake(free_wei=Wei(2 * 10**18), locked_wei={JobId(1): Wei(10**18)}),
        },
    )
    facts = FakeFacts(
        backed_up=False,
        clock_fault="this clock is at least 60 s behind the chain: set it",
        reading=replace(QUIET, head_number=100, open_transactions=2, open_blocks=7),
    )
    text = await show(FakeNode(chain=FakeChain(state), facts=facts), tmp_path, capsys)
    assert "0.0.0, up for 1 min 15 s" in text
    assert "balance     1 ether" in text
    assert "2 ether free, 1 ether locked" in text
    assert "none yet; run d2m-node key export" in text
    assert "block 90, 10 blocks behind" in text
    assert "clock       this clock is at least 60 s behind the chain: set it" in text
    assert "2 transactions, the oldest for 7 blocks" in text
    assert "blobs 0.00 of 1.0 GiB, 2.0 GiB free" in text
    assert "may be appealed until block 100" in text
    assert all(len(line) <= TERMINAL_COLUMNS for line in text.splitlines() if "peer " not in line)


async def test_a_status_says_whom_the_node_dials_in_vain(tmp_path: Path, capsys: Any) -> None:
    reason = "/ip4/1.2.3.4/tcp/1 does not answer"
    node = FakeNode()
    node.network.known = (
        PeerStatus(
            peer_id=b"\x09", multiaddr="/ip4/1.2.3.4/tcp/1", connected=False, last_error=reason,
            failures=(DialFailure(multiaddr="/ip4/1.2.3.4/tcp/1", source="cache", reason=reason),),
            next_dial_seconds=75.0,
        ),
    )  # fmt: skip
    text = await show(node, tmp_path, capsys)
    assert "peer dialled in vain" in text
    assert f"{reason}  in 1 min 15 s" in text


async def test_a_status_says_who_was_turned_away_and_the_peers_say_themselves(
    tmp_path: Path, capsys: Any
) -> None:
    peer = PeerStatus(
        peer_id=b"\x09", multiaddr="/ip4/1.2.3.4/tcp/1", connected=True, last_error=None,
        penalty=3.25, turned_away={"slow": 2},
    )  # fmt: skip
    banned = replace(
        peer, peer_id=b"\x0a", multiaddr="", connected=False, banned_seconds=8.5,
        last_error="banned for another 9 s: lies", penalty=0.0, turned_away={},
    )  # fmt: skip
    network = replace(QUIET_NETWORK, refusals={"slow": 2}, denied=5)
    node = FakeNode(facts=FakeFacts(network=network))
    node.network.known = (peer, banned)
    text = await show(node, tmp_path, capsys)
    assert "turned away  2 slow readers, 5 blobs denied" in text
    assert "1 connected of 2 known, 1 banned" in text
    text = await show(node, tmp_path, capsys, "peers")
    assert "connected; penalty 3.2; 2 slow readers" in text
    assert "0x0a" in text, "who came by itself and is gone has no address"
    assert "banned for another 9 s: lies" in text


async def test_a_quiet_node_has_a_short_status(tmp_path: Path, capsys: Any) -> None:
    text = await show(FakeNode(facts=FakeFacts(balance_wei=None)), tmp_path, capsys)
    assert "up to date" in text
    assert "balance  unknown" in text
    for absent in (
        "stake",
        "key backup",
        "clock",
        "waiting",
        "reach",
        "fetching",
        "turned away",
        "\njob ",
    ):
        assert absent not in text


async def test_a_node_that_others_cannot_reach_says_what_to_do(tmp_path: Path, capsys: Any) -> None:
    facts = FakeFacts(reach=Reachability(Reach.UNREACHABLE, "open TCP port 9393"))
    text = await show(FakeNode(facts=facts), tmp_path, capsys)
    assert "0 connected of 0 known; others cannot reach this node" in text
    assert "reach    open TCP port 9393" in text
    facts.reach = Reachability(Reach.RELAYED)
    text = await show(FakeNode(facts=facts), tmp_path, capsys)
    assert "0 connected of 0 known; others reach this node through a relay" in text
    facts.reach = Reachability(Reach.REACHABLE)
    text = await show(FakeNode(facts=facts), tmp_path, capsys)
    assert "0 connected of 0 known; others reach this node" in text


async def test_what_is_being_fetched_is_listed_with_its_progress(
    tmp_path: Path, capsys: Any
) -> None:
    transfer = Transfer(
        digest=Digest(b"\xab" * 32), received_bytes=3 << 20, size_bytes=12 << 20, source_count=4
    )
    unsized = replace(transfer, received_bytes=0, size_bytes=None, source_count=1)
    node = FakeNode(facts=FakeFacts(fetched=(transfer, unsized)))
    text = await show(node, tmp_path, capsys)
    first, second = [line for line in text.splitlines() if line.startswith("0xabab")]
    assert first.split("  ")[1:] == ["3.0 of 12.0 MiB, 25%", "4"]
    assert second.split() == ["0x" + "ab" * 32, "0.0", "MiB", "1"]


async def test_what_is_spent_of_a_privacy_budget_is_shown_per_dataset(
    tmp_path: Path, capsys: Any
) -> None:
    node = FakeNode(facts=FakeFacts(epsilon_budget=8.0))
    assert "epsilon 8 for each dataset, nothing spent yet" in await show(node, tmp_path, capsys)
    private = PrivateTraining(noise_multiplier=1.0, max_grad_norm=1.0, sample_rate=0.1, steps=10)
    spent = (("ab", 1, 0, 0.5), ("ab", 1, 1, 1.25), ("ab", 2, 0, 2.0), ("cd", 1, 0, 7.125))
    for dataset, job, round_index, epsilon in spent:
        key = f"{dataset * 32}/31337-0b/{job}/{round_index:06}/000000"
        entry = msgspec.msgpack.encode((private, epsilon, 1e-5))
        await node.store.journal.remember(TRAININGS, key, entry)
    text = await show(node, tmp_path, capsys)
    dearest, other = [re.split(" {2,}", line) for line in text.splitlines() if "delta" in line]
    assert dearest == ["0x" + "cd" * 32, "7.12 of 8 at delta 1e-05", "1", "1"]
    assert other == ["0x" + "ab" * 32, "2 of 8 at delta 1e-05", "3", "2"]
    node.facts.epsilon_budget = None
    assert "epsilon" not in await show(node, tmp_path, capsys)


@pytest.mark.parametrize(
    ("amount_wei", "text"),
    [
        (0, "0 ether"),
        (10**18, "1 ether"),
        (999_999_999_999_999_999_999, "999.999999 ether"),
        (10**12, "0.000001 ether"),
        (10**12 - 1, "999999999999 wei"),
    ],
)
def test_amounts_at_a_glance_are_never_rounded_up(amount_wei: int, text: str) -> None:
    assert round_wei(amount_wei) == text


def test_hashes_are_cut_short_on_a_terminal_only_where_they_are_long() -> None:
    assert shorten_hex("0x" + "ab" * 20) == "0xababab…ababab"
    assert shorten_hex("0x0123456789") == "0x0123456789"
    assert shorten_hex("/ip4/127.0.0.1/tcp/9393") == "/ip4/127.0.0.1/tcp/9393"


def test_an_account_is_found_in_each_of_its_roles() -> None:
    job = applied()
    assert find_roles(job, CONES[0]) == (Role.CONE,)
    assert find_roles(job, SELLERS[0]) == (Role.SELLER,)
    assert find_roles(job, Address(b"\x98" * 20)) == ()
    assert find_roles(replace(job, bids={BUYER: object()}), BUYER) == (Role.BUYER,)  # type: ignore[dict-item]


@pytest.mark.parametrize(
    ("phase", "block", "words"),
    [
        (JobPhase.AUCTION, 1, "bids until block 1"),
        (JobPhase.AUCTION, 2, "reveals until block 3"),
        (JobPhase.AUCTION, 4, "the auction is to be closed"),
        (JobPhase.ENROLMENT, 5, "applications until block 5"),
        (JobPhase.ENROLMENT, 6, "the enrolment is to be closed"),
        (JobPhase.VALIDATION, 7, "validation data until block 7"),
        (JobPhase.VALIDATION, 8, "training is to be started"),
        (JobPhase.SETTLING, 100, "may be appealed until block 100"),
        (JobPhase.SETTLING, 101, "to be settled"),
        (JobPhase.SETTLED, 1, "over"),
        (JobPhase.CANCELLED, 1, "over"),
    ],
)
def test_each_phase_says_what_it_waits_for(phase: JobPhase, block: int, words: str) -> None:
    job = replace(
        SETTLED,
        phase=phase,
        commit_end=BlockNumber(1),
        reveal_end=BlockNumber(3),
        enrolment_end=BlockNumber(5),
        validation_end=BlockNumber(7),
    )
    assert describe_activity(job, BlockNumber(block)) == words


def test_a_ballot_says_which_window_is_open() -> None:
    ballot = SETTLED.decided[0].ballot
    ballot = replace(
        ballot,
        update_commit_end=BlockNumber(10),
        update_open_end=BlockNumber(12),
        availability_end=BlockNumber(15),
        mini_rounds=(
            replace(ballot.mini_rounds[0], commit_end=BlockNumber(20), open_end=BlockNumber(23)),
        ),
    )
    job = replace(SETTLED, phase=JobPhase.TRAINING, ballot=ballot)
    told = [describe_activity(job, BlockNumber(block)) for block in (10, 11, 15, 16, 23, 24)]
    assert told == [
        "round 0: updates until block 10",
        "round 0: openings of updates until block 12",
        "round 0: availability until block 15",
        "round 0: votes until block 20",
        "round 0: openings of votes until block 23",
        "round 0: the count",
    ]
    final = replace(job, ballot=replace(SETTLED.decided[2].ballot, attempt=1))
    assert describe_activity(final, BlockNumber(1)).startswith(
        "final evaluation after round 1, retry 1: availability"
    )
    nothing = replace(job, ballot=None)
    assert describe_activity(nothing, BlockNumber(0)) == "a ballot is to be opened"
