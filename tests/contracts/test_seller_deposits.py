"""SellerDeposits: kept, returned, forfeited, burned for two commitments."""

from collections.abc import Mapping
from typing import Any

import boa
import pytest
from eth_utils.address import to_checksum_address
from eth_utils.crypto import keccak

from d2m_node.calls import ReportEquivocation
from protocol.types import Address, JobId
from tests.contracts import deposit_vectors, reference
from tests.contracts.scenarios import REACHED, make_job, reach, split
from tests.contracts.stage import make_params, sign_permit
from tests.contracts.support import load_vector, unhex
from tests.contracts.world import (
    BURN_ACCOUNT,
    CHAIN,
    NO_ACCOUNT,
    ONE_ETHER,
    PARAMS,
    Actor,
    Job,
    World,
    make_actor,
)
from tests.support.chain import make_bindings

VECTORS = load_vector("deposits.json")
DEPOSIT = ONE_ETHER
FIRST, SECOND = keccak(b"one update"), keccak(b"another update")


def sign(job: Job, seller: Actor, commitment: bytes, /, **changes: Any) -> tuple[bytes, bytes]:
    """A commitment with the seller's signature."""
    place: dict[str, Any] = {
        "chain": CHAIN,
        "market": job.world.market_raw,
        "job": job.number,
        "round_index": 0,
        "commitment": commitment,
        **changes,
    }
    message = reference.update_message(**place)
    return commitment, reference.sign(seller.key, message)


def report(
    job: Job, seller: Actor, first: tuple[bytes, bytes], second: tuple[bytes, bytes]
) -> None:
    """A stranger brings evidence about round 0."""
    world = job.world
    world.deposits.report_equivocation(
        job.number, 0, seller.address, first, second, sender=world.stranger.address
    )


def prove(job: Job, seller: Actor) -> None:
    report(job, seller, sign(job, seller, FIRST), sign(job, seller, SECOND))


def held(job: Job) -> list[int]:
    """Deposits by seller; the contract holds exactly their sum."""
    world = job.world
    amounts = [world.deposits.deposit_of(job.number, one.address) for one in job.sellers]
    assert world.balance(world.deposits.address) == sum(amounts)
    return amounts


def reclaim(job: Job, seller: Actor) -> int:
    """Reclaim; return what the seller got."""
    before = job.world.balance(seller.address)
    job.world.deposits.reclaim(job.number, sender=seller.address)
    return job.world.balance(seller.address) - before


def deposit_events(contract: Any, name: str) -> list[Any]:
    return [log for log in contract.get_logs() if type(log).__name__ == name]


def test_the_vector_file_is_what_its_construction_gives() -> None:
    assert deposit_vectors.build() == VECTORS


@pytest.mark.parametrize("case", VECTORS["deposit_range"], ids=lambda case: str(case["price_wei"]))
def test_deposit_range_as_in_the_vectors(rules: Any, case: dict[str, int]) -> None:
    shares = {"cone_bps": case["cone_bps"], "floor_bps": case["floor_bps"]}
    params = tuple({**PARAMS, **shares}.values())
    got = rules.deposit_range(case["price_wei"], case["sellers_min"], params)
    assert tuple(got) == (case["least_wei"], case["most_wei"])


@pytest.mark.parametrize("case", VECTORS["forfeit"])
def test_forfeits_as_in_the_vectors(rules: Any, case: dict[str, Any]) -> None:
    utilities = (case["initial_utility"], case["last_utility"], case["is_final_evaluated"])
    numbers = (case["outcome"], case["rounds_done"], *utilities)
    result = (bytes(32), *numbers, bytes(32), bytes(32), 0, 0, [], [])
    assert rules.is_forfeit(result) == case["is_forfeit"]


@pytest.mark.parametrize("case", VECTORS["equivocation"], ids=lambda case: case["name"])
def test_equivocation_as_in_the_vectors(rules: Any, case: dict[str, Any]) -> None:
    boa.env.evm.patch.chain_id = VECTORS["chain"]
    sides = ((unhex(one["commitment"]), unhex(one["signature"])) for one in _sides(case))
    market, seller = (to_checksum_address(one) for one in (VECTORS["market"], case["seller"]))
    arguments = (market, case["job"], case["round"], seller, *sides)
    if case["verdict"] == deposit_vectors.PROVED:
        rules.check_equivocation(*arguments)
        return
    with boa.reverts(f"deposits: {case['verdict']}"):
        rules.check_equivocation(*arguments)


def _sides(case: dict[str, Any]) -> tuple[dict[str, str], dict[str, str]]:
    return case["first"], case["second"]


@pytest.mark.parametrize("wrong_wei", [0, DEPOSIT - 1, DEPOSIT + 1])
def test_a_seller_enrols_with_the_deposit_of_the_terms(
    world: World, job: Job, wrong_wei: int
) -> None:
    job.prepare().open_auction().close_auction()
    with boa.reverts("money: not the amount"):
        job.enrol_seller(0, value=wrong_wei)
    job.enrol_seller(0)
    assert held(job) == [DEPOSIT, 0, 0, 0, 0]
    (kept,) = deposit_events(world.enrolment, "SellerDeposited")
    assert (kept.job, kept.seller, kept.amount_wei) == (1, job.sellers[0].address, DEPOSIT)


@pytest.mark.parametrize("deposit_wei", [7 * ONE_ETHER // 10 - 1, 14 * ONE_ETHER // 10 + 1])
def test_a_deposit_that_does_not_fit_the_price_is_not_revealed(
    world: World, deposit_wei: int
) -> None:
    job = Job(world, changes={"seller_deposit_wei": deposit_wei}).prepare()
    with boa.reverts("market: seller_deposit_wei does not fit the price"):
        job.open_auction()


@pytest.mark.parametrize("deposit_wei", [7 * ONE_ETHER // 10, 14 * ONE_ETHER // 10])
def test_the_ends_of_the_range_are_revealed(world: World, deposit_wei: int) -> None:
    job = Job(world, changes={"seller_deposit_wei": deposit_wei}).prepare().open_auction()
    assert world.market.bid_of(1, world.buyer.address).is_revealed
    job.close_auction().enrol()
    assert held(job) == [deposit_wei] * 5


def test_deposits_return_when_the_job_is_settled(world: World) -> None:
    job = reach(make_job(world))
    job.decide_final(REACHED)
    with boa.reverts("deposits: job not closed"):
        reclaim(job, job.sellers[0])
    job.settle()
    for seller in job.sellers:
        assert reclaim(job, seller) == DEPOSIT
        (returned,) = deposit_events(world.deposits, "DepositReturned")
        assert (returned.job, returned.seller) == (1, seller.address)
        assert returned.amount_wei == DEPOSIT
    assert held(job) == [0] * 5
    with boa.reverts("deposits: nothing deposited"):
        reclaim(job, job.sellers[0])


def test_deposits_return_when_too_few_enrolled(world: World) -> None:
    job = Job(world).prepare().open_auction().close_auction()
    job.seller_count, job.sellers = 4, job.sellers[:4]
    job.enrol().close_enrolment()
    assert [reclaim(job, seller) for seller in job.sellers] == [DEPOSIT] * 4
    assert held(job) == [0] * 4


def test_deposits_return_when_the_buyer_served_nothing(world: World, job: Job) -> None:
    job.prepare().open_auction().close_auction().enrol().close_enrolment().start_training()
    job.settle()
    assert [reclaim(job, seller) for seller in job.sellers] == [DEPOSIT] * 5


def test_deposits_return_when_every_round_was_void(world: World) -> None:
    job = make_job(world)
    for _ in range(4):
        split(job)
    assert job.outcome == 3
    job.settle()
    assert [reclaim(job, seller) for seller in job.sellers] == [DEPOSIT] * 5


def test_accepted_sellers_of_a_model_that_got_no_better_forfeit(world: World) -> None:
    job = make_job(world, rounds_max=1)
    job.decide_round(500_000)
    job.decide_final(90_000)
    burned_wei = world.burned_wei
    job.settle()
    forfeited = deposit_events(world.settlement, "DepositForfeited")
    assert [(one.seller, one.amount_wei) for one in forfeited] == [
        (seller.address, DEPOSIT) for seller in job.sellers[:2]
    ]
    assert held(job) == [0, 0, DEPOSIT, DEPOSIT, DEPOSIT]
    assert world.burned_wei - burned_wei == 2 * DEPOSIT
    with boa.reverts("deposits: nothing deposited"):
        reclaim(job, job.sellers[0])
    assert [reclaim(job, seller) for seller in job.sellers[2:]] == [DEPOSIT] * 3


def test_one_unit_of_progress_saves_the_deposits(world: World) -> None:
    job = make_job(world, rounds_max=1)
    job.decide_round(500_000)
    job.decide_final(90_001)
    job.settle()
    assert held(job) == [DEPOSIT] * 5


def test_nobody_forfeits_when_nobody_knows_who_was_accepted(world: World) -> None:
    job = make_job(world, rounds_max=1)
    job.decide(job.round_header(credit_root=keccak(b"unknown")))
    job.decide_final(90_000)
    world.blocks.mine_past(job.result.final_block + 100)
    world.settlement.settle(1, job.terms_list, job.course, [])
    assert held(job) == [DEPOSIT] * 5


def test_nobody_forfeits_for_utilities_that_are_not_of_one_final_evaluation(world: World) -> None:
    job = make_job(world, rounds_max=1)
    # The round's own: from 100,000 on one part of the data to 1 on another.
    job.decide_round(1)
    job.submit_receipts(1)
    for _ in range(2):
        split(job)
    assert job.outcome == 2
    assert not job.result.is_final_evaluated
    job.settle()
    assert held(job) == [DEPOSIT] * 5


def test_two_commitments_for_one_round_burn_the_deposit(world: World) -> None:
    job = make_job(world)
    hostile = job.sellers[1]
    burned_wei = world.burned_wei
    prove(job, hostile)
    (proved,) = deposit_events(world.deposits, "EquivocationProved")
    assert (proved.job, proved.seller, proved.round_index) == (1, hostile.address, 0)
    assert (proved.first_commitment, proved.second_commitment) == (FIRST, SECOND)
    assert proved.amount_wei == DEPOSIT == world.burned_wei - burned_wei
    assert held(job) == [DEPOSIT, 0, DEPOSIT, DEPOSIT, DEPOSIT]
    with boa.reverts("deposits: nothing deposited"):
        prove(job, hostile)


def test_who_lost_its_deposit_in_the_enrolment_does_not_enrol_again(world: World, job: Job) -> None:
    job.prepare().open_auction().close_auction()
    job.enrol_seller(0)
    prove(job, job.sellers[0])
    with boa.reverts("deposits: already deposited"):
        job.enrol_seller(0)
    assert held(job) == [0] * 5


def test_a_nodes_report_is_taken_as_the_node_encodes_it(world: World) -> None:
    job = make_job(world)
    hostile = job.sellers[1]
    call = ReportEquivocation(
        job=JobId(1),
        round_index=0,
        seller=Address(hostile.raw),
        first=sign(job, hostile, FIRST),
        second=sign(job, hostile, SECOND),
    )
    data = make_bindings().encode_call(call).data
    boa.env.raw_call(world.deposits.address, sender=world.stranger.address, data=data)
    assert held(job) == [DEPOSIT, 0, DEPOSIT, DEPOSIT, DEPOSIT]


def test_evidence_is_taken_until_the_deposit_is_returned(world: World) -> None:
    job = reach(make_job(world))
    job.decide_final(REACHED)
    job.settle()
    hostile, honest = job.sellers[:2]
    prove(job, hostile)
    with boa.reverts("deposits: nothing deposited"):
        reclaim(job, hostile)
    assert reclaim(job, honest) == DEPOSIT
    with boa.reverts("deposits: nothing deposited"):
        prove(job, honest)


def test_what_was_burned_for_evidence_is_not_burned_again_by_the_settlement(world: World) -> None:
    job = make_job(world, rounds_max=1)
    job.decide_round(500_000)
    job.decide_final(90_000)
    prove(job, job.sellers[0])
    burned_wei = world.burned_wei
    job.settle()
    assert world.burned_wei - burned_wei == DEPOSIT
    assert held(job) == [0, 0, DEPOSIT, DEPOSIT, DEPOSIT]


def test_evidence_against_nobody_is_refused(world: World) -> None:
    job = make_job(world)
    with boa.reverts("deposits: nothing deposited"):
        prove(job, world.stranger)


@pytest.mark.parametrize(
    "changes",
    [{"job": 2}, {"round_index": 1}, {"chain": CHAIN + 1}, {"market": bytes(20)}],
    ids=lambda changes: next(iter(changes)),
)
def test_a_commitment_for_somewhere_else_is_no_evidence(
    world: World, changes: dict[str, Any]
) -> None:
    job = make_job(world)
    seller = job.sellers[0]
    elsewhere = sign(job, seller, SECOND, **changes)
    with boa.reverts("deposits: not signed by the seller"):
        report(job, seller, sign(job, seller, FIRST), elsewhere)
    assert held(job) == [DEPOSIT] * 5


def test_the_commitments_of_two_sellers_are_no_evidence(world: World) -> None:
    job = make_job(world)
    one, other = job.sellers[:2]
    with boa.reverts("deposits: not signed by the seller"):
        report(job, one, sign(job, one, FIRST), sign(job, other, SECOND))


def test_one_commitment_with_two_signatures_is_no_evidence(world: World) -> None:
    job = make_job(world)
    seller = job.sellers[0]
    commitment, signature = sign(job, seller, FIRST)
    mirrored = deposit_vectors.mirror(signature)
    with boa.reverts("deposits: equal commitments"):
        report(job, seller, (commitment, signature), (commitment, mirrored))


def test_the_deposits_of_jobs_are_apart(world: World) -> None:
    first = Job(world).prepare().open_auction().close_auction().enrol()
    second = Job(world)
    second.datasets = first.datasets
    second.open_auction().close_auction()
    second.enrol_seller(0)
    hostile = first.sellers[0]
    prove(second, hostile)
    assert world.deposits.deposit_of(1, hostile.address) == DEPOSIT
    assert world.deposits.deposit_of(2, hostile.address) == 0
    assert world.balance(world.deposits.address) == 5 * DEPOSIT


class Purse:
    """The contract alone, with an enrolment and a settlement that the test plays."""

    def __init__(self, deployers: Mapping[str, Any], token: str = "Plain") -> None:
        self.stage = deployers["Stage"].deploy()
        self.token = deployers[f"Token{token}"].deploy()
        self.settlement = make_actor("settlement").address
        params = make_params(self.token.address, {})
        at = self.stage.address
        self.contract = deployers["SellerDeposits"].deploy(params, at, at, self.settlement)
        boa.env.set_balance(at, 100 * DEPOSIT)

    def keep(self, seller: str, amount_wei: int = DEPOSIT, **changes: Any) -> None:
        """Keep a deposit in ether, as the enrolment asks for it."""
        options = {"value": amount_wei, "sender": self.stage.address, **changes}
        self.contract.deposit(1, seller, NO_ACCOUNT, amount_wei, [], **options)

    def keep_token(self, seller: str, *permits: tuple[Any, ...], value: int = 0) -> None:
        """The same in the token."""
        self.contract.deposit(
            1, seller, self.token.address, DEPOSIT, list(permits),
            value=value, sender=self.stage.address,
        )  # fmt: skip

    def fund(self, seller: str, allowed: int = DEPOSIT) -> None:
        """Give a seller money, and the contract its allowance."""
        self.token.mint(seller, DEPOSIT)
        self.token.approve(self.contract.address, allowed, sender=seller)

    def deposit_of(self, seller: str) -> int:
        return int(self.contract.deposit_of(1, seller))


@pytest.fixture
def purse(world: World, deployers: Mapping[str, Any]) -> Purse:
    return Purse(deployers)


def test_only_the_enrolment_deposits_and_once(purse: Purse) -> None:
    seller = make_actor("seller").address
    with boa.reverts("deposits: only the enrolment"):
        purse.keep(seller, sender=seller)
    with boa.reverts("deposits: amount out of range"):
        purse.keep(seller, 0)
    with boa.reverts("deposits: amount out of range"):
        purse.keep(seller, 2**255, value=0)
    purse.keep(seller)
    with boa.reverts("deposits: already deposited"):
        purse.keep(seller)


@pytest.mark.parametrize("sent", [0, DEPOSIT - 1, DEPOSIT + 1])
def test_the_ether_that_comes_along_is_the_deposit(purse: Purse, sent: int) -> None:
    with boa.reverts("money: not the amount"):
        purse.keep(make_actor("seller").address, value=sent)


def test_a_deposit_in_the_token_is_taken_from_its_seller(purse: Purse) -> None:
    seller = make_actor("seller").address
    purse.fund(seller)
    with boa.reverts("money: ether for a token"):
        purse.keep_token(seller, value=1)
    purse.keep_token(seller)
    assert purse.token.balanceOf(seller) == 0
    assert purse.token.balanceOf(purse.contract.address) == DEPOSIT == purse.deposit_of(seller)
    purse.stage.close(1)
    purse.contract.reclaim(1, sender=seller)
    assert (purse.token.balanceOf(seller), purse.deposit_of(seller)) == (DEPOSIT, 0)


def test_a_permit_stands_for_an_allowance(purse: Purse) -> None:
    actor = make_actor("seller")
    purse.token.mint(actor.address, DEPOSIT)
    permit = sign_permit(purse.token, actor, purse.contract.address, DEPOSIT)
    purse.keep_token(actor.address, permit)
    assert purse.deposit_of(actor.address) == DEPOSIT


def test_a_permit_that_was_used_before_does_not_stop_the_deposit(purse: Purse) -> None:
    actor = make_actor("seller")
    purse.token.mint(actor.address, DEPOSIT)
    permit = sign_permit(purse.token, actor, purse.contract.address, DEPOSIT)
    purse.token.permit(actor.address, purse.contract.address, *permit)
    purse.keep_token(actor.address, permit)
    assert purse.deposit_of(actor.address) == DEPOSIT


def test_a_permit_of_somebody_else_moves_nothing(purse: Purse) -> None:
    actor, stranger = make_actor("seller"), make_actor("stranger")
    purse.token.mint(actor.address, DEPOSIT)
    permit = sign_permit(purse.token, stranger, purse.contract.address, DEPOSIT)
    with pytest.raises(boa.BoaError):
        purse.keep_token(actor.address, permit)
    assert purse.token.balanceOf(actor.address) == DEPOSIT


def test_another_token_is_no_currency(purse: Purse, deployers: Mapping[str, Any]) -> None:
    seller, other = make_actor("seller").address, deployers["TokenPlain"].deploy()
    with boa.reverts("deposits: not a currency"):
        purse.contract.deposit(1, seller, other.address, 1, [], sender=purse.stage.address)


def test_a_token_that_returns_nothing_is_taken_and_paid(
    world: World, deployers: Mapping[str, Any]
) -> None:
    purse, seller = Purse(deployers, "Silent"), make_actor("seller").address
    purse.fund(seller)
    purse.keep_token(seller)
    purse.stage.close(1)
    purse.contract.reclaim(1, sender=seller)
    assert purse.token.balanceOf(seller) == DEPOSIT


def test_a_token_that_keeps_a_fee_is_refused(world: World, deployers: Mapping[str, Any]) -> None:
    purse, seller = Purse(deployers, "Fee"), make_actor("seller").address
    purse.fund(seller)
    with boa.reverts("money: token keeps a fee"):
        purse.keep_token(seller)
    assert purse.token.balanceOf(seller) == DEPOSIT


def test_a_token_that_says_no_is_believed(world: World, deployers: Mapping[str, Any]) -> None:
    purse, seller = Purse(deployers, "Hostile"), make_actor("seller").address
    purse.fund(seller)
    purse.token.refuse(True)
    with boa.reverts("money: token refused"):
        purse.keep_token(seller)
    purse.token.refuse(False)
    purse.keep_token(seller)
    purse.stage.close(1)
    purse.token.refuse(True)
    with boa.reverts("money: token refused"):
        purse.contract.reclaim(1, sender=seller)
    assert purse.deposit_of(seller) == DEPOSIT


def test_a_hostile_token_cannot_come_back_in(world: World, deployers: Mapping[str, Any]) -> None:
    purse, seller = Purse(deployers, "Hostile"), make_actor("seller").address
    other = make_actor("other seller").address
    purse.fund(seller)
    purse.fund(other)
    again = purse.contract.deposit.prepare_calldata(1, other, purse.token.address, DEPOSIT, [])
    purse.token.arm(purse.contract.address, again)
    purse.keep_token(seller)
    assert (purse.token.has_tried(), purse.token.has_succeeded()) == (True, False)
    purse.keep_token(other)
    purse.stage.close(1)
    purse.token.arm(purse.contract.address, purse.contract.reclaim.prepare_calldata(1))
    purse.contract.reclaim(1, sender=seller)
    assert (purse.token.has_tried(), purse.token.has_succeeded()) == (True, False)
    assert purse.token.balanceOf(seller) == DEPOSIT
    assert purse.token.balanceOf(purse.contract.address) == DEPOSIT == purse.deposit_of(other)


def test_only_the_settlement_forfeits(purse: Purse) -> None:
    seller = make_actor("seller").address
    purse.keep(seller)
    with boa.reverts("deposits: only the settlement"):
        purse.contract.forfeit(1, [seller], sender=purse.stage.address)
    purse.contract.forfeit(1, [seller, seller], sender=purse.settlement)
    assert len(purse.contract.get_logs()) == 1
    assert boa.env.get_balance(purse.contract.address) == 0


def test_deposits_in_the_token_are_forfeited_in_the_token(purse: Purse) -> None:
    sellers = [make_actor(f"seller {index}").address for index in range(3)]
    for seller in sellers:
        purse.fund(seller)
        purse.keep_token(seller)
    purse.contract.forfeit(1, sellers[:2], sender=purse.settlement)
    assert purse.token.balanceOf(BURN_ACCOUNT) == 2 * DEPOSIT
    assert [purse.deposit_of(seller) for seller in sellers] == [0, 0, DEPOSIT]
    assert purse.token.balanceOf(purse.contract.address) == DEPOSIT


def test_who_was_left_out_reclaims_at_once(purse: Purse) -> None:
    seller, member = make_actor("seller").address, make_actor("member").address
    purse.keep(seller)
    purse.keep(member)
    with boa.reverts("deposits: job not closed"):
        purse.contract.reclaim(1, sender=seller)
    purse.stage.leave_out(1, seller)
    purse.contract.reclaim(1, sender=seller)
    assert purse.deposit_of(seller) == 0
    with boa.reverts("deposits: job not closed"):
        purse.contract.reclaim(1, sender=member)


def test_who_enrolled_as_a_contract_is_paid_once(
    purse: Purse, deployers: Mapping[str, Any]
) -> None:
    greedy = deployers["HostileAccount"].deploy()
    purse.keep(greedy.address)
    purse.keep(make_actor("other seller").address)
    purse.stage.close(1)
    reclaim_again = purse.contract.reclaim.prepare_calldata(1)
    greedy.arm(purse.contract.address, reclaim_again)
    greedy.execute(purse.contract.address, reclaim_again)
    assert greedy.has_tried()
    assert not greedy.has_succeeded()
    assert boa.env.get_balance(greedy.address) == DEPOSIT
    assert boa.env.get_balance(purse.contract.address) == DEPOSIT
    with boa.reverts("deposits: nothing deposited"):
        greedy.execute(purse.contract.address, reclaim_again)


def test_who_refuses_its_money_can_have_it_later(
    purse: Purse, deployers: Mapping[str, Any]
) -> None:
    seller = deployers["HostileAccount"].deploy()
    purse.keep(seller.address)
    purse.stage.close(1)
    seller.refuse(True)
    with boa.reverts("account: refused"):
        seller.execute(purse.contract.address, purse.contract.reclaim.prepare_calldata(1))
    assert purse.deposit_of(seller.address) == DEPOSIT
    seller.refuse(False)
    seller.execute(purse.contract.address, purse.contract.reclaim.prepare_calldata(1))
    assert boa.env.get_balance(seller.address) == DEPOSIT
