"""Enrolment: who may apply, who is drawn, and how everybody gets out again."""

from collections.abc import Sequence
from typing import Any

import boa
import pytest
from eth_utils.crypto import keccak

from tests.contracts import enrolment_vectors
from tests.contracts.blocks import beacon_value, header_of
from tests.contracts.rosters import CONE_SIZE, SELLER_SIZE, list_pool, list_roster
from tests.contracts.world import CHAIN, NO_PERMIT, ONE_ETHER, TAGS, Job, World, make_actor

CANCELLED, RUNNING = 2, 4
REACH = 8191
HISTORY_ACCOUNT = "0x0000F90827F1C53a10cb7A02335B175320002935"
ROOT = keccak(b"ticket root")


@pytest.fixture
def crowd(world: World) -> Job:
    """A job in enrolment for which more applied than there are places."""
    return make_crowd(world)


def make_crowd(world: World, **changes: int) -> Job:
    places = {"sellers_min": 5, "sellers_max": 6, "cones_min": 3, "cones_max": 5, "lead": 3}
    job = Job(world, 9, 8, changes={**places, **changes})
    return job.prepare().open_auction().close_auction().enrol()


def enrolment_end(job: Job) -> int:
    return int(job.world.market.job_of(job.number).enrolment_end)


def seed_block(job: Job) -> int:
    return enrolment_end(job) + int(job.world.params["seed_delay_blocks"])


def draw(job: Job, label: str, places: int, applied: int, block: int) -> list[int]:
    seed = enrolment_vectors.enrol_seed(
        CHAIN, job.world.market_raw, job.number, beacon_value(block)
    )
    return enrolment_vectors.draw(seed, label, places, applied)


def pick(accounts: Sequence[Any], indices: Sequence[int]) -> list[str]:
    return [accounts[index].address for index in indices]


def logs_of(world: World, name: str) -> list[Any]:
    return [one for one in world.enrolment.get_logs() if type(one).__name__ == name]


# --- applications


def test_applications_are_numbered_and_bind_deposits_and_stake(world: World, job: Job) -> None:
    job.prepare().open_auction().close_auction()
    for index, seller in enumerate(job.sellers):
        job.enrol_seller(index)
        (applied,) = logs_of(world, "SellerEnrolled")
        assert (applied.job, applied.index, applied.seller) == (1, index, seller.address)
        assert applied.dataset_id == job.datasets[index]
        assert world.deposits.deposit_of(1, seller.address) == job.terms["seller_deposit_wei"]
    for index, (cone, chain) in enumerate(zip(job.cones, job.chains, strict=True)):
        world.enrolment.enrol_cone(1, job.terms_list, chain[0], sender=cone.address)
        (applied,) = logs_of(world, "ConeEnrolled")
        assert (applied.job, applied.index, applied.node) == (1, index, cone.address)
        assert applied.ticket_root == chain[0]
        assert world.stakes.lock_of(1, cone.address).remaining_wei == 4 * ONE_ETHER
        assert world.stakes.holding_of(cone.address).free_wei == 4 * ONE_ETHER
    assert world.enrolment.applications_of(1) == (5, 5)
    assert world.enrolment.sellers_of(1) == world.enrolment.cones_of(1) == "0x" + 40 * "0"


def test_a_seller_that_does_not_fit_does_not_apply(world: World, job: Job) -> None:
    job.prepare().open_auction()
    with boa.reverts("enrolment: not in enrolment"):
        job.enrol_seller(0)
    job.close_auction()
    with boa.reverts("enrolment: wrong terms"):
        job.enrol_seller(0, terms=(7, *job.terms_list[1:]))
    with boa.reverts("enrolment: not your data"):
        job.enrol_seller(0, dataset_id=2)
    poor = world.data.register_dataset(TAGS[:1], bytes(32), 0, 0, sender=job.sellers[0].address)
    with boa.reverts("enrolment: tags missing"):
        job.enrol_seller(0, dataset_id=poor)
    with boa.reverts("money: not the amount"):
        job.enrol_seller(0, value=job.terms["seller_deposit_wei"] - 1)
    with boa.reverts("money: not the amount"):
        job.enrol_seller(0, value=job.terms["seller_deposit_wei"] + 1)
    assert world.enrolment.applications_of(1) == (0, 0)


def test_a_seller_applies_once(world: World, job: Job) -> None:
    job.prepare().open_auction().close_auction()
    job.enrol_seller(0)
    with boa.reverts("deposits: already deposited"):
        job.enrol_seller(0)
    other = world.data.register_dataset(TAGS, bytes(32), 0, 0, sender=job.sellers[0].address)
    with boa.reverts("deposits: already deposited"):
        job.enrol_seller(0, dataset_id=other)
    assert world.enrolment.applications_of(1) == (1, 0)


def test_a_seller_takes_part_at_its_minimum_price_and_not_below(world: World, job: Job) -> None:
    job.prepare().open_auction().close_auction()
    seller = job.sellers[0].address
    dear = world.data.register_dataset(TAGS, bytes(32), job.price_wei + 1, 0, sender=seller)
    with boa.reverts("enrolment: below your minimum price"):
        job.enrol_seller(0, dataset_id=dear)
    fair = world.data.register_dataset(
        TAGS, bytes(32), job.price_wei, job.price_wei + 1, sender=seller
    )
    job.enrol_seller(0, dataset_id=fair)


def test_a_node_that_does_not_fit_does_not_apply(world: World, job: Job) -> None:
    job.prepare().open_auction()
    enrolment, cone = world.enrolment, job.cones[0].address
    with boa.reverts("enrolment: not in enrolment"):
        enrolment.enrol_cone(1, job.terms_list, ROOT, sender=cone)
    job.close_auction()
    with boa.reverts("enrolment: wrong terms"):
        enrolment.enrol_cone(1, (7, *job.terms_list[1:]), ROOT, sender=cone)
    with boa.reverts("enrolment: no ticket root"):
        enrolment.enrol_cone(1, job.terms_list, bytes(32), sender=cone)
    with boa.reverts("enrolment: staked too late"):
        enrolment.enrol_cone(1, job.terms_list, ROOT, sender=world.stranger.address)
    enrolment.enrol_cone(1, job.terms_list, ROOT, sender=cone)
    with boa.reverts("stake: already locked"):
        enrolment.enrol_cone(1, job.terms_list, keccak(ROOT), sender=cone)
    assert enrolment.applications_of(1) == (0, 1)


def test_stake_that_came_after_the_auction_was_seen_does_not_count(world: World, job: Job) -> None:
    job.prepare().open_auction()
    late = job.cones[0].address
    world.stakes.deposit(value=4 * ONE_ETHER, sender=late)
    job.close_auction()
    with boa.reverts("enrolment: staked too late"):
        world.enrolment.enrol_cone(1, job.terms_list, ROOT, sender=late)


def test_stake_of_the_block_of_the_auction_does_not_count(world: World, job: Job) -> None:
    job.prepare()
    late = job.cones[0].address
    world.stakes.deposit(value=1, sender=late)
    job.open_auction().close_auction()
    with boa.reverts("enrolment: staked too late"):
        world.enrolment.enrol_cone(1, job.terms_list, ROOT, sender=late)


def test_a_node_without_enough_free_stake_does_not_apply(world: World, job: Job) -> None:
    job.prepare().open_auction().close_auction()
    poor = job.cones[0].address
    world.stakes.request_unbond(4 * ONE_ETHER + 1, sender=poor)
    with boa.reverts("stake: not enough free stake"):
        world.enrolment.enrol_cone(1, job.terms_list, ROOT, sender=poor)


def test_applications_end_with_the_last_block_of_the_window(world: World, job: Job) -> None:
    job.prepare().open_auction().close_auction()
    world.blocks.mine_to(enrolment_end(job))
    job.enrol_seller(0)
    world.enrolment.enrol_cone(1, job.terms_list, ROOT, sender=job.cones[0].address)
    world.blocks.mine()
    with boa.reverts("enrolment: closed"):
        job.enrol_seller(1)
    with boa.reverts("enrolment: closed"):
        world.enrolment.enrol_cone(1, job.terms_list, ROOT, sender=job.cones[1].address)


def test_more_may_apply_than_there_are_places_but_not_without_end(world: World) -> None:
    job = make_crowd(world)
    assert world.enrolment.applications_of(1) == (9, 8)
    for number in range(9, 257):
        seller = make_actor(f"seller {number}").address
        dataset = world.data.register_dataset(TAGS, bytes(32), 0, 0, sender=seller)
        arguments = (1, job.terms_list, dataset, NO_PERMIT)
        deposit_wei = job.terms["seller_deposit_wei"]
        if number < 256:
            world.enrolment.enrol_seller(*arguments, value=deposit_wei, sender=seller)
        else:
            with boa.reverts("enrolment: too many sellers"):
                world.enrolment.enrol_seller(*arguments, value=deposit_wei, sender=seller)
    assert world.enrolment.applications_of(1) == (256, 8)


def test_applications_of_nodes_have_an_end_too(world: World) -> None:
    job = Job(world, 5, 257, changes={"stake_wei": ONE_ETHER})
    job.prepare().open_auction().close_auction()
    for number, cone in enumerate(job.cones):
        if number < 256:
            world.enrolment.enrol_cone(1, job.terms_list, ROOT, sender=cone.address)
        else:
            with boa.reverts("enrolment: too many nodes"):
                world.enrolment.enrol_cone(1, job.terms_list, ROOT, sender=cone.address)


# --- closing with a place for all


def test_closing_freezes_the_members_and_starts_the_wait_for_receipts(
    world: World, job: Job, members: Any
) -> None:
    job.prepare().open_auction().close_auction().enrol()
    end = enrolment_end(job)
    world.blocks.mine_to(end)
    with boa.reverts("enrolment: still open"):
        world.enrolment.close_enrolment(1, job.terms_list, *job.applications, b"")
    world.blocks.mine()
    with boa.reverts("enrolment: wrong terms"):
        world.enrolment.close_enrolment(1, (7, *job.terms_list[1:]), *job.applications, b"")
    world.enrolment.close_enrolment(1, job.terms_list, *job.applications, b"")

    (closed,) = logs_of(world, "EnrolmentClosed")
    assert (closed.job, closed.sellers, closed.cones) == (1, 5, 5)
    assert (closed.enrolment_end, closed.validation_end) == (end, end + 1 + 7)
    assert logs_of(world, "SellersDrawn") == logs_of(world, "ConesDrawn") == []
    assert world.market.job_of(1).status == RUNNING
    sellers, cones = world.enrolment.sellers_of(1), world.enrolment.cones_of(1)
    assert list_roster(members, sellers, SELLER_SIZE) == pick(job.sellers, range(5))
    assert list_roster(members, cones, CONE_SIZE) == pick(job.cones, range(5))
    assert list_pool(members, cones) == job.applications[1]
    assert tuple(world.ballots.pool_of(1)) == (cones, 5, 0)
    with boa.reverts("enrolment: not in enrolment"):
        world.enrolment.close_enrolment(1, job.terms_list, *job.applications, b"")


def test_a_late_close_gives_the_whole_time_for_receipts(world: World, job: Job) -> None:
    job.prepare().open_auction().close_auction().enrol()
    world.blocks.mine_to(enrolment_end(job) + 30)
    world.enrolment.close_enrolment(1, job.terms_list, *job.applications, b"")
    (closed,) = logs_of(world, "EnrolmentClosed")
    assert closed.validation_end == world.blocks.number + 7


def test_as_many_as_there_are_places_need_no_draw(world: World) -> None:
    job = make_crowd(world, sellers_max=9, cones_max=8)
    job.close_enrolment(b"no header")
    assert logs_of(world, "SellersDrawn") == logs_of(world, "ConesDrawn") == []


def test_another_list_does_not_close_an_enrolment(world: World, job: Job) -> None:
    job.prepare().open_auction().close_auction().enrol()
    world.blocks.mine_past(enrolment_end(job))
    sellers, cones = job.applications
    stranger = world.stranger.address

    def close(sellers: list[str], cones: list[tuple[str, bytes]]) -> None:
        world.enrolment.close_enrolment(1, job.terms_list, sellers, cones, b"")

    for wrong in ([], sellers[:-1], [*sellers, stranger], sellers[::-1], [stranger, *sellers[1:]]):
        with boa.reverts("enrolment: not the sellers"):
            close(wrong, cones)
    forged_root = [(cones[0][0], keccak(b"forged")), *cones[1:]]
    forged_node = [(stranger, cones[0][1]), *cones[1:]]
    for others in ([], cones[:-1], [*cones, (stranger, ROOT)], forged_root, forged_node):
        with boa.reverts("enrolment: not the nodes"):
            close(sellers, others)
    close(sellers, cones)


def test_lists_of_another_job_do_not_close_an_enrolment(world: World) -> None:
    first = Job(world).prepare().open_auction().close_auction().enrol()
    other = Job(world, 6, 6)
    other.datasets = first.datasets
    other.open_auction().close_auction()
    world.blocks.mine_past(enrolment_end(other))
    with boa.reverts("enrolment: not the sellers"):
        world.enrolment.close_enrolment(2, other.terms_list, *first.applications, b"")


@pytest.mark.parametrize(("sellers", "cones"), [(4, 5), (5, 4), (0, 0)])
def test_a_job_with_too_few_applications_is_cancelled(
    world: World, job: Job, sellers: int, cones: int
) -> None:
    job.prepare().open_auction().close_auction()
    job.sellers, job.cones = job.sellers[:sellers], job.cones[:cones]
    job.chains, job.seller_count = job.chains[:cones], sellers
    job.enrol()
    job.close_enrolment(b"no header")

    assert world.market.job_of(1).status == CANCELLED
    assert logs_of(world, "EnrolmentClosed") == []
    assert world.enrolment.sellers_of(1) == world.enrolment.cones_of(1) == "0x" + 40 * "0"
    for cone in job.cones:
        assert not world.enrolment.is_cone_left_out(1, cone.address)
        world.stakes.release(1, cone.address)
        assert world.stakes.holding_of(cone.address).free_wei == 8 * ONE_ETHER
    for seller in job.sellers:
        assert not world.enrolment.is_seller_left_out(1, seller.address)
        before = world.balance(seller.address)
        world.deposits.reclaim(1, sender=seller.address)
        assert world.balance(seller.address) - before == job.terms["seller_deposit_wei"]
    with boa.reverts("enrolment: not in enrolment"):
        world.enrolment.close_enrolment(1, job.terms_list, *job.applications, b"")


def test_a_crowd_of_sellers_does_not_make_up_for_missing_nodes(world: World) -> None:
    job = Job(world, 9, 5, changes={"sellers_max": 6}).prepare().open_auction().close_auction()
    for index in range(9):
        job.enrol_seller(index)
    job.cones, job.chains = [], []
    job.close_enrolment()
    assert world.market.job_of(1).status == CANCELLED


# --- closing with a draw


def test_the_chain_draws_the_members(world: World, crowd: Job, members: Any) -> None:
    block = seed_block(crowd)
    world.blocks.mine_past(block)
    crowd.close_enrolment(header_of(block))

    sellers = draw(crowd, "enrol-sellers", 6, 9, block)
    cones = draw(crowd, "enrol-cones", 5, 8, block)
    (drawn_sellers,), (drawn_cones,) = logs_of(world, "SellersDrawn"), logs_of(world, "ConesDrawn")
    assert (drawn_sellers.job, drawn_sellers.indices) == (1, sellers)
    assert (drawn_cones.job, drawn_cones.indices) == (1, cones)
    (closed,) = logs_of(world, "EnrolmentClosed")
    assert (closed.sellers, closed.cones) == (6, 5)
    roster = world.enrolment.sellers_of(1)
    assert list_roster(members, roster, SELLER_SIZE) == pick(crowd.sellers, sellers)
    pool = world.enrolment.cones_of(1)
    assert list_roster(members, pool, CONE_SIZE) == pick(crowd.cones, cones)
    assert list_pool(members, pool) == [crowd.applications[1][index] for index in cones]
    assert tuple(world.ballots.pool_of(1)) == (pool, 5, 0)


def test_only_those_with_too_few_places_are_drawn(world: World) -> None:
    job = make_crowd(world, sellers_max=9)
    world.blocks.mine_past(seed_block(job))
    job.close_enrolment(header_of(seed_block(job)))
    assert logs_of(world, "SellersDrawn") == []
    (drawn,) = logs_of(world, "ConesDrawn")
    assert drawn.indices == draw(job, "enrol-cones", 5, 8, seed_block(job))
    assert not any(world.enrolment.is_seller_left_out(1, one.address) for one in job.sellers)


def test_a_draw_waits_for_its_block_and_takes_no_other_header(world: World, crowd: Job) -> None:
    block = seed_block(crowd)
    world.blocks.mine_to(block)
    with boa.reverts("header: block not mined"):
        crowd.close_enrolment(header_of(block))
    world.blocks.mine()
    for wrong in (b"", header_of(block - 1), header_of(block)[:-1]):
        with boa.reverts("header: not of this block"):
            crowd.close_enrolment(wrong)
    world.blocks.mine(5)
    with boa.reverts("header: not of this block"):
        crowd.close_enrolment(header_of(world.blocks.number - 1))
    crowd.close_enrolment(header_of(block))


def test_a_draw_out_of_reach_moves_on_in_fixed_steps(
    world: World, crowd: Job, deployers: dict[str, Any]
) -> None:
    block = seed_block(crowd)
    world.blocks.mine_to(block + REACH + 1)
    with boa.reverts("header: not of this block"):
        crowd.close_enrolment(header_of(block))
    crowd.close_enrolment(header_of(block + REACH))
    (drawn,) = logs_of(world, "SellersDrawn")
    assert drawn.indices == draw(crowd, "enrol-sellers", 6, 9, block + REACH)
    assert drawn.indices != draw(crowd, "enrol-sellers", 6, 9, block)


def test_the_last_block_within_reach_is_the_first_seed(
    world: World, crowd: Job, deployers: dict[str, Any]
) -> None:
    block = seed_block(crowd)
    deployers["BlockHistory"].deploy(
        block, keccak(header_of(block)), override_address=HISTORY_ACCOUNT
    )
    world.blocks.mine_to(block + REACH)
    crowd.close_enrolment(header_of(block))
    (drawn,) = logs_of(world, "SellersDrawn")
    assert drawn.indices == draw(crowd, "enrol-sellers", 6, 9, block)


def test_a_draw_that_nobody_can_prove_is_given_up_in_the_end(world: World, crowd: Job) -> None:
    last_block = seed_block(crowd) + 2 * REACH
    world.blocks.mine_to(last_block)
    with boa.reverts("header: block too old"):
        crowd.close_enrolment(b"")
    world.blocks.mine()
    with boa.reverts("header: not of this block"):
        crowd.close_enrolment(b"no header")
    crowd.close_enrolment(b"")
    assert world.market.job_of(1).status == CANCELLED
    assert world.enrolment.sellers_of(1) == world.enrolment.cones_of(1) == "0x" + 40 * "0"
    world.market.reclaim_escrow(1, sender=world.buyer.address)
    for seller in crowd.sellers:
        world.deposits.reclaim(1, sender=seller.address)
    for cone in crowd.cones:
        world.stakes.release(1, cone.address)
    assert world.balance(world.market.address) == world.balance(world.deposits.address) == 0


def test_a_draw_can_be_made_as_long_as_nobody_gave_it_up(world: World, crowd: Job) -> None:
    block = seed_block(crowd) + 2 * REACH
    world.blocks.mine_to(block + 1)
    crowd.close_enrolment(header_of(block))
    assert world.market.job_of(1).status == RUNNING


def test_a_job_without_a_draw_is_never_given_up(world: World, job: Job) -> None:
    job.prepare().open_auction().close_auction().enrol()
    world.blocks.mine_to(enrolment_end(job) + 3 * REACH)
    job.close_enrolment(b"")
    assert world.market.job_of(1).status == RUNNING


def test_a_seller_left_out_has_its_deposit_back_at_once(world: World, crowd: Job) -> None:
    seller = crowd.sellers[0].address
    with boa.reverts("deposits: job not closed"):
        world.deposits.reclaim(1, sender=seller)
    world.blocks.mine_past(seed_block(crowd))
    crowd.close_enrolment(header_of(seed_block(crowd)))
    chosen = draw(crowd, "enrol-sellers", 6, 9, seed_block(crowd))
    for index, one in enumerate(crowd.sellers):
        assert world.enrolment.is_seller_left_out(1, one.address) == (index not in chosen)
        if index in chosen:
            with boa.reverts("deposits: job not closed"):
                world.deposits.reclaim(1, sender=one.address)
        else:
            before = world.balance(one.address)
            world.deposits.reclaim(1, sender=one.address)
            assert world.balance(one.address) - before == crowd.terms["seller_deposit_wei"]
            with boa.reverts("deposits: nothing deposited"):
                world.deposits.reclaim(1, sender=one.address)
    held = crowd.terms["seller_deposit_wei"] * 6
    assert world.balance(world.deposits.address) == held


def test_a_node_left_out_has_its_stake_free_at_once(world: World, crowd: Job) -> None:
    world.blocks.mine_past(seed_block(crowd))
    with boa.reverts("stake: job not closed"):
        world.stakes.release(1, crowd.cones[0].address)
    crowd.close_enrolment(header_of(seed_block(crowd)))
    chosen = draw(crowd, "enrol-cones", 5, 8, seed_block(crowd))
    for index, cone in enumerate(crowd.cones):
        assert world.enrolment.is_cone_left_out(1, cone.address) == (index not in chosen)
        if index in chosen:
            with boa.reverts("stake: job not closed"):
                world.stakes.release(1, cone.address)
        else:
            world.stakes.release(1, cone.address)
            assert world.stakes.holding_of(cone.address).free_wei == 8 * ONE_ETHER
            with boa.reverts("stake: nothing locked"):
                world.stakes.release(1, cone.address)


def test_who_never_applied_gets_nothing_out_of_a_draw(world: World, crowd: Job) -> None:
    stranger = world.stranger.address
    assert not world.enrolment.is_cone_left_out(1, stranger)
    world.blocks.mine_past(seed_block(crowd))
    crowd.close_enrolment(header_of(seed_block(crowd)))
    with boa.reverts("stake: nothing locked"):
        world.stakes.release(1, stranger)
    with boa.reverts("deposits: nothing deposited"):
        world.deposits.reclaim(1, sender=stranger)


def test_the_members_that_were_drawn_train_the_job(world: World, crowd: Job) -> None:
    block = seed_block(crowd)
    world.blocks.mine_past(block)
    crowd.close_enrolment(header_of(block))
    sellers = draw(crowd, "enrol-sellers", 6, 9, block)
    cones = draw(crowd, "enrol-cones", 5, 8, block)
    crowd.sellers = [crowd.sellers[index] for index in sellers]
    crowd.cones = [crowd.cones[index] for index in cones]
    crowd.chains = [crowd.chains[index] for index in cones]
    crowd.seller_count, crowd.cone_count, crowd.credits = 6, 5, [0] * 6
    crowd.submit_receipts(0).start_training()
    crowd.decide_round()
    assert crowd.ballot.round_index == 1


# --- who may call


def test_only_the_enrolment_moves_a_job_on(world: World, job: Job) -> None:
    job.prepare().open_auction().close_auction().enrol()
    hostile = world.stranger.address
    for call in (world.market.start_job, world.market.cancel_job):
        with boa.reverts("market: only the enrolment"):
            call(1, sender=hostile)
    with boa.reverts("stake: only the enrolment locks"):
        world.stakes.lock(1, hostile, 1, sender=hostile)
    with boa.reverts("deposits: only the enrolment"):
        world.deposits.deposit(1, hostile, "0x" + 40 * "0", 1, NO_PERMIT, value=1, sender=hostile)
    with boa.reverts("rounds: only the enrolment"):
        world.rounds.open_job(1, bytes(32), 1, hostile, 1, sender=hostile)
