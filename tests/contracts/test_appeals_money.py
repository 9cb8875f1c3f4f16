"""Appeals: bonds in a token, and accounts and tokens that mean harm."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import boa
import pytest

from tests.contracts.auctions import OPEN, Auction, encode_call
from tests.contracts.scenarios import (
    appeal,
    bond,
    contested,
    decide_by,
    event,
    expire,
    held,
    honest,
    hostile,
    tally_pool,
    upright,
    withdraw,
)
from tests.contracts.test_market_tokens import sign_permit
from tests.contracts.world import (
    BURN_ACCOUNT,
    ETHER,
    HONEST_TRACE,
    NO_PERMIT,
    Ballot,
    Job,
    World,
)


@dataclass
class TokenJob(Job):
    """A job whose price, deposits and bonds are in a token."""

    token: Any = None

    def give(self, account: str, spender: Any, amount_wei: int) -> None:
        """Let an account have tokens that a contract may take."""
        self.token.mint(account, amount_wei)
        self.token.approve(spender.address, amount_wei, sender=account)

    def open_auction(self) -> "Job":
        auction = Auction(self.world, OPEN, token=self.token)
        auction.terms = self.terms_list
        self.number = auction.number
        self.give(self.world.buyer.address, self.world.market, self.price_wei)
        auction.open_clear(self.world.buyer, self.price_wei)
        self.world.blocks.mine_past(auction.of.reveal_end)
        return self

    def enrol_seller(self, index: int, **changes: Any) -> None:
        deposit_wei = self.terms["seller_deposit_wei"]
        self.give(self.sellers[index].address, self.world.deposits, deposit_wei)
        super().enrol_seller(index, value=0, **changes)


def make_token_job(deployers: Mapping[str, Any], token: Any) -> TokenJob:
    """A job in a token whose first round nodes 0 to 2 of seven decided wrongly."""
    world = World(deployers, token=token.address)
    job = TokenJob(world, cone_count=7, changes={"first_set_size": 7}, token=token)
    job.train()
    decide_by(job, range(3), hostile(job))
    return job


@pytest.fixture
def job(deployers: Mapping[str, Any], clean_chain: None) -> TokenJob:
    return make_token_job(deployers, deployers["TokenPlain"].deploy())


def appeal_in_tokens(job: TokenJob, index: int = 6) -> int:
    job.give(job.cones[index].address, job.world.appeals, bond(job))
    return appeal(job, index, value=0)


def decided(job: Job) -> Ballot:
    """What the first nodes voted for."""
    return Ballot(job.course[2], HONEST_TRACE)


def overturn(job: Job) -> None:
    """Let the rest of the pool vote for another digest."""
    header, vote = honest(job)
    groups = [(0, decided(job)), (1, vote)]
    job.vote(dict.fromkeys(range(3, 7), vote))
    tally_pool(job, groups, header)


def test_a_bond_is_in_the_currency_of_the_job(job: TokenJob) -> None:
    appeals, token = job.world.appeals, job.token
    bond_wei = bond(job)
    with boa.reverts("money: ether for a token"):
        appeal(job, 6)
    with boa.reverts():
        appeal(job, 6, value=0)  # nothing was allowed
    appeal_in_tokens(job)
    assert tuple(appeals.appeal_of(1)) == (job.cones[6].address, token.address, bond_wei)
    assert token.balanceOf(appeals.address) == bond_wei
    assert job.world.balance(appeals.address) == 0


def test_a_bond_in_a_token_comes_back(job: TokenJob) -> None:
    bond_wei = appeal_in_tokens(job)
    overturn(job)
    assert event(job.world.rounds, "AppealResolved").is_overturned
    with boa.reverts("appeals: nothing to withdraw"):
        withdraw(job.world, job.cones[6], ETHER)
    assert withdraw(job.world, job.cones[6], job.token.address) == bond_wei
    assert job.token.balanceOf(job.cones[6].address) == bond_wei
    assert job.token.balanceOf(job.world.appeals.address) == 0


def test_a_bond_in_a_token_is_shared_and_its_rest_burned(job: TokenJob) -> None:
    bond_wei = appeal_in_tokens(job)
    _, vote = honest(job)
    job.vote(dict.fromkeys(range(3, 6), vote))
    tally_pool(job, [(0, decided(job)), (1, vote)])
    token, each = job.token, bond_wei // 3
    for index in range(3, 6):
        assert withdraw(job.world, job.cones[index], token.address) == each
    assert token.balanceOf(BURN_ACCOUNT) == bond_wei - 3 * each
    assert token.balanceOf(job.world.appeals.address) == 0


def test_an_appeal_brings_a_permit(job: TokenJob) -> None:
    world, token, appellant = job.world, job.token, job.cones[6]
    bond_wei = bond(job)
    token.mint(appellant.address, bond_wei)
    spender = bytes.fromhex(world.appeals.address[2:])
    permit = sign_permit(token, world, appellant, bond_wei, spender=spender)
    world.appeals.appeal(
        1, job.terms_list, job.course, False, 6, [permit], value=0, sender=appellant.address
    )
    assert token.balanceOf(world.appeals.address) == bond_wei
    assert token.balanceOf(appellant.address) == 0


def test_a_token_that_says_no_pays_no_bond(deployers: Mapping[str, Any]) -> None:
    job = make_token_job(deployers, deployers["TokenHostile"].deploy())
    job.token.refuse(True)
    with boa.reverts("money: token refused"):
        appeal_in_tokens(job)
    job.token.refuse(False)
    appeal_in_tokens(job)


def test_a_token_that_refuses_to_burn_holds_up_no_job(deployers: Mapping[str, Any]) -> None:
    job = make_token_job(deployers, deployers["TokenHostile"].deploy())
    appeal_in_tokens(job)
    job.token.refuse(True)
    expire(job)
    assert event(job.world.rounds, "AppealResolved").burned_wei > 0
    assert (job.ballot.ballot_number, job.ballot.round_index) == (2, 1)


@pytest.mark.parametrize("again", ["appeal", "withdraw"])
def test_a_hostile_token_is_not_let_in_during_an_appeal(
    deployers: Mapping[str, Any], again: str
) -> None:
    job = make_token_job(deployers, deployers["TokenHostile"].deploy())
    appeals = job.world.appeals
    arguments = {
        "appeal": (1, job.terms_list, job.course, False, 6, NO_PERMIT),
        "withdraw": (job.token.address,),
    }
    job.token.arm(appeals.address, encode_call(appeals, again, *arguments[again]))
    bond_wei = appeal_in_tokens(job)
    assert job.token.has_tried()
    assert not job.token.has_succeeded()
    assert appeals.appeal_of(1).bond_wei == bond_wei


def test_a_hostile_token_cannot_withdraw_twice(deployers: Mapping[str, Any]) -> None:
    job = make_token_job(deployers, deployers["TokenHostile"].deploy())
    appeals = job.world.appeals
    bond_wei = appeal_in_tokens(job)
    overturn(job)
    job.token.mint(appeals.address, bond_wei)
    job.token.arm(appeals.address, encode_call(appeals, "withdraw", job.token.address))
    assert withdraw(job.world, job.cones[6], job.token.address) == bond_wei
    assert job.token.has_tried()
    assert job.token.balanceOf(job.cones[6].address) == bond_wei
    assert job.token.balanceOf(appeals.address) == bond_wei


@pytest.mark.parametrize("again", ["expire", "tally", "execute_slashes"])
def test_a_hostile_token_is_not_let_in_while_a_bond_is_burned(
    deployers: Mapping[str, Any], again: str
) -> None:
    job = make_token_job(deployers, deployers["TokenHostile"].deploy())
    rounds = job.world.rounds
    appeal_in_tokens(job)
    with boa.env.anchor():
        expire(job)
        resumed = job.course
    arguments = {
        "expire": (1, job.terms_list, resumed),
        "tally": (1, job.terms_list, resumed, [], b""),
        "execute_slashes": (1, resumed),
    }
    job.world.courses[1].pop()
    job.token.arm(rounds.address, encode_call(rounds, again, *arguments[again]))
    expire(job)
    assert job.token.has_tried()
    assert not job.token.has_succeeded()
    assert job.course == resumed


def test_a_payee_that_refuses_its_money_holds_up_nobody(
    world: World, deployers: Mapping[str, Any]
) -> None:
    job, _, vote = upright(world)
    appeal(job, 6)
    job.vote(dict.fromkeys((3, 4), vote))
    tally_pool(job, [(0, vote), (1, vote)])
    account = deployers["HostileAccount"].deploy()
    # The code of an account may change between its vote and its withdrawal.
    boa.env.set_code(job.cones[3].address, boa.env.get_code(account.address))
    deployers["HostileAccount"].at(job.cones[3].address).refuse(True)
    before = held(job)
    with boa.reverts("account: refused"):
        withdraw(world, job.cones[3], ETHER)
    assert withdraw(world, job.cones[4], ETHER) > 0
    assert world.balance(world.appeals.address) == held(job) == before // 2


def test_a_job_in_ether_and_one_that_ended_keep_their_bonds_apart(world: World) -> None:
    job, vote, lie = contested(world)
    bond_wei = appeal(job, 6)
    job.vote(dict.fromkeys(range(3, 7), vote))
    tally_pool(job, [(0, lie), (1, vote)], job.round_header())
    for account in (*job.cones[:6], *job.sellers, world.stranger, world.buyer):
        with boa.reverts("appeals: nothing to withdraw"):
            withdraw(world, account, ETHER)
    assert withdraw(world, job.cones[6], ETHER) == bond_wei
    assert world.balance(world.appeals.address) == 0
