"""What must be true of a job, whatever happened to its nodes."""

import sqlite3
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field

import trio

from d2m_node.chain.adapter import find_market
from d2m_node.chain.artifacts import CONTRACTS
from d2m_node.chain.client import RpcClient, open_client
from d2m_node.chain.json_rpc import Request, parse_bytes, parse_quantity, to_hex
from d2m_node.devnet.launcher import BALANCE_WEI
from d2m_node.devnet.layout import NodePlan
from d2m_node.storage.database import DATABASE_NAME
from protocol.ballot import Ballot
from protocol.bitmap import decode_bitmap
from protocol.deposits import DepositStatus
from protocol.job import JobPhase, JobState
from protocol.market import MarketState
from protocol.params import BPS
from protocol.sortition import encode_mini
from protocol.types import NO_ACCOUNT, Address, BlockNumber, JobId
from tests.faults.director import Outage, Records
from tests.faults.market import FaultyMarket
from tests.faults.table import Fault
from tests.faults.token import TOKENS, read_token_balance

COME_BACK_BLOCKS = 4
"""A node that has been back for so many blocks of a window can be asked to have used it."""
QUIET_SECONDS = 90.0
NO_REVEAL = 2


@dataclass
class Watch:
    """Every ballot as the chain told it last; the state keeps the open one of a job only."""

    ballots: dict[JobId, dict[tuple[int, int], Ballot]] = field(default_factory=dict)

    async def follow(self, market: FaultyMarket) -> None:
        """Take note of ballots until cancelled."""
        chain = market.devnet.chain
        while True:
            await chain.wait_block(BlockNumber(chain.state.block_number + 1))
            for job in chain.state.jobs.values():
                if job.ballot is not None:
                    self.ballots.setdefault(job.job_id, {})[job.ballot.opened_at] = job.ballot


@dataclass(frozen=True, slots=True)
class Sent:
    """What the chain has mined of each account; hashes of what was refused are left out."""

    spent_wei: dict[Address, int]
    """Gas, and the money that went along with calls that succeeded."""
    hashes: dict[Address, set[bytes]]


async def check_job(market: FaultyMarket, job_id: JobId, watch: Watch) -> list[str]:
    """List what is wrong with a job that is over; nothing, if all is well."""
    chain, setup = market.devnet.chain, market.setup
    found: list[str] = []
    with trio.move_on_after(QUIET_SECONDS):
        await chain.wait_for(lambda state: True if not list(_list_unclaimed(state)) else None)
    found += list(_list_unclaimed(chain.state))
    job = chain.state.jobs[job_id]
    expected = JobPhase.CANCELLED if setup.is_cancelled else JobPhase.SETTLED
    if job.phase is not expected:
        found.append(f"the job ended as {job.phase.value}")
    if job.settled is not None:
        paid = sum(payout.amount_wei for payout in job.payouts)
        if job.shares is None and paid != job.settled.price_wei:
            found.append(f"payouts and refund are {paid}, the price is {job.settled.price_wei}")
        if not job.decided_rounds:
            found.append("no round was decided")
        if job.settled.rounds_done < len(job.decided_rounds):
            found.append("a decided round was not paid")
    if job.voided and not setup.may_void:
        found.append(f"rounds {list(job.voided)} are void")
    names = {plan.account: plan.name for plan in market.devnet.plans}
    found += [
        f"round {one.decision.round_index}: votes for another digest ({one.decision.wrong:b})"
        for one in job.decided
        if any(
            names[job.cones[index].account] not in setup.attacks
            for index in decode_bitmap(one.decision.wrong)
        )
    ]
    found += [
        problem
        for slashed, problem in _check_slashes(job, names, watch, market.director.records.outages)
        if slashed not in setup.attacks
    ]
    return found


def _list_unclaimed(state: MarketState) -> Iterator[str]:
    """List money that somebody could have, and has not pulled."""
    for (_, account), claim in [*state.payouts.items(), *state.bonds.items()]:
        if claim.owed_wei:
            yield f"0x{account.hex()} has not claimed {claim.owed_wei}"
    for account, stake in state.stakes.items():
        if stake.reward_wei:
            yield f"0x{account.hex()} has not withdrawn rewards of {stake.reward_wei}"
        if any(stake.locked_wei.values()):
            yield f"stake of 0x{account.hex()} is still locked"
    for job in state.jobs.values():
        held = [one for one in job.deposits.values() if one.status is DepositStatus.HELD]
        if held:
            yield f"job {job.job_id}: {len(held)} deposits are still held"
        for bid in job.bids.values():
            is_due = job.buyer != bid.bidder or bid.deposit_wei > job.price_wei
            if is_due and not bid.reclaimed:
                yield f"job {job.job_id}: the bid of 0x{bid.bidder.hex()} is not reclaimed"
        if job.phase is JobPhase.CANCELLED and job.buyer and not job.escrow_reclaimed:
            yield f"job {job.job_id}: the price was not taken back"


def _check_slashes(
    job: JobState, names: Mapping[Address, str], watch: Watch, outages: list[Outage]
) -> Iterator[tuple[str, str]]:
    """A slash is legitimate if its node was away when it should have opened its vote."""
    for slash in job.slashes:
        name = names[slash.account]
        if slash.reason != NO_REVEAL:
            yield name, f"{name} was slashed for a wrong vote"
        elif not any(
            excuses(outage, ballot, index)
            for outage in outages
            if outage.node == name
            for ballot in watch.ballots.get(job.job_id, {}).values()
            for index in [job.cone_index(slash.account)]
            if index in ballot.committed and index not in ballot.opened
        ):
            yield name, f"{name} was slashed for a vote that it could have opened"


def excuses(outage: Outage, ballot: Ballot, index: int | None) -> bool:
    """Tell whether an outage covers a node's window to open, or all but its last blocks.

    Who has the chain can open its vote without peers, so a cut from peers alone excuses nothing.
    """
    if outage.fault is Fault.CUT_PEERS:
        return False
    minis = [b.mini_round_index for b in ballot.batches if any(i == index for i, _ in b.entries)]
    for mini_round in ballot.mini_rounds:
        if mini_round.mini_round_index in minis:
            end = outage.last_block if outage.last_block is not None else mini_round.open_end
            is_before_end = outage.first_block <= mini_round.open_end
            if is_before_end and end > mini_round.open_end - COME_BACK_BLOCKS:
                return True
    return False


def check_statements(records: Records, hostile: Collection[str]) -> list[str]:
    """List what an honest node signed twice, in different words."""
    return [
        f"{place[1]} said {len(said)} different things: {place}"
        for place, said in records.statements.items()
        if len(said) > 1 and place[1] not in hostile
    ]


def check_recorded_votes(market: FaultyMarket, watch: Watch) -> list[str]:
    """List commitments on the chain that their node has not said."""
    names = {plan.account: plan.name for plan in market.devnet.plans}
    said = market.director.records.statements
    found = []
    for job_id, ballots in watch.ballots.items():
        cones = market.devnet.chain.state.jobs[job_id].cones
        for ballot in ballots.values():
            for batch in ballot.batches:
                mini = encode_mini(ballot.kind, ballot.attempt, batch.mini_round_index)
                for index, commitment in batch.entries:
                    node = names[cones[index].account]
                    place = ("say/VoteCommit", node, job_id, ballot.round_index, mini)
                    if commitment.hex() not in said.get(place, ()):
                        found.append(f"job {job_id}: {node} never said its vote on the chain")
    return found


async def check_money(market: FaultyMarket, sent: Sent) -> list[str]:
    """Compare the balances of accounts and contracts with the folded events.

    Every job must be over and every payee paid.
    """
    state = market.devnet.chain.state
    async with open_client([market.url]) as client:
        contracts = await _read_contracts(client, market)
        holders = {**contracts, **{plan.name: plan.account for plan in market.devnet.plans}}
        balances = await _read_balances(client, holders, state.block_number)
    spent = sent.spent_wei
    stakes = sum(
        one.free_wei + sum(one.locked_wei.values()) + one.unbonding_wei + one.reward_wei
        for one in state.stakes.values()
    )
    expected = dict.fromkeys(contracts, 0) | {"StakePool": stakes}
    for plan in market.devnet.plans:
        received = _sum_received(market, plan.account, NO_ACCOUNT)
        if plan.account in state.stakes:
            received += state.stakes[plan.account].withdrawn_wei
        expected[plan.name] = BALANCE_WEI - spent[plan.account] + received
    found = [
        f"{name} has {balances[name]} wei, the events say {expected[name]}"
        for name in holders
        if balances[name] != expected[name]
    ]
    return found if market.token == NO_ACCOUNT else found + await _check_tokens(market, contracts)


async def _check_tokens(market: FaultyMarket, contracts: Mapping[str, Address]) -> list[str]:
    """Compare what accounts and contracts have of the token with the folded events."""
    state = market.devnet.chain.state
    expected = dict.fromkeys(contracts, 0)
    for plan in market.devnet.plans:
        paid = sum(
            job.deposits[plan.account].amount_wei if plan.account in job.deposits else 0
            for job in state.jobs.values()
        )
        paid += sum(
            job.bids[plan.account].deposit_wei if plan.account in job.bids else 0
            for job in state.jobs.values()
        )
        expected[plan.name] = TOKENS - paid + _sum_received(market, plan.account, market.token)
    holders = {**contracts, **{plan.name: plan.account for plan in market.devnet.plans}}
    found = []
    async with open_client([market.url]) as client:
        for name, address in holders.items():
            balance = await read_token_balance(client, market.token, address)
            if balance != expected[name]:
                found.append(f"{name} has {balance} of the token, not {expected[name]}")
    return found


def _sum_received(market: FaultyMarket, account: Address, currency: Address) -> int:
    """Sum up what the contracts have paid to an account in a currency, stake left out."""
    state = market.devnet.chain.state
    total = sum(
        claims[currency, account].withdrawn_wei
        for claims in (state.payouts, state.bonds)
        if (currency, account) in claims
    )
    for job in (one for one in state.jobs.values() if one.currency == currency):
        deposit = job.deposits.get(account)
        if deposit is not None and deposit.status is DepositStatus.RETURNED:
            total += deposit.amount_wei
        bid = job.bids.get(account)
        if bid is not None and bid.reclaimed:
            total += bid.deposit_wei - (job.price_wei if job.buyer == account else 0)
            if bid.amount_wei is None:  # never revealed
                total -= bid.deposit_wei * market.devnet.chain.params.bid_forfeit_bps // BPS
        if job.buyer == account and job.escrow_reclaimed:
            total += job.price_wei
    return total


async def _read_contracts(client: RpcClient, market: FaultyMarket) -> dict[str, Address]:
    found = await find_market(client, market.devnet.chain.domain.market)
    return {name: found.bindings._addresses[name] for name in CONTRACTS}


async def _read_balances(
    client: RpcClient, holders: Mapping[str, Address], block: int
) -> dict[str, int]:
    requests = [
        Request("eth_getBalance", (to_hex(address), hex(block))) for address in holders.values()
    ]
    answers = await client.batch(requests)
    return {name: parse_quantity(one) for name, one in zip(holders, answers, strict=True)}


async def read_sent(market: FaultyMarket) -> Sent:
    """Read every block up to the followed one."""
    accounts = [plan.account for plan in market.devnet.plans]
    sent = Sent(dict.fromkeys(accounts, 0), {account: set() for account in accounts})
    async with open_client([market.url]) as client:
        for block in range(market.devnet.chain.state.block_number + 1):
            found, receipts = await client.batch(
                [
                    Request("eth_getBlockByNumber", (hex(block), True)),
                    Request("eth_getBlockReceipts", (hex(block),)),
                ]
            )
            for one, receipt in zip(found["transactions"], receipts, strict=True):
                sender = Address(parse_bytes(one["from"]))
                if sender not in sent.spent_wei:
                    continue
                price_wei = parse_quantity(receipt["effectiveGasPrice"])
                sent.spent_wei[sender] += parse_quantity(receipt["gasUsed"]) * price_wei
                if parse_quantity(receipt["status"]):
                    # The store lets go of what was refused: it had no effect.
                    sent.hashes[sender].add(parse_bytes(one["hash"]))
                    sent.spent_wei[sender] += parse_quantity(one["value"])
    return sent


def check_transactions(plan: NodePlan, mined: Collection[bytes]) -> list[str]:
    """List keys with two confirmed transactions, and effects that were never written down."""
    connection = sqlite3.connect(f"file:{plan.folder / DATABASE_NAME}?mode=ro", uri=True)
    try:
        twice = connection.execute(
            "SELECT key, count(DISTINCT nonce) FROM transactions"
            " WHERE state = 'confirmed' GROUP BY key HAVING count(DISTINCT nonce) > 1"
        ).fetchall()
        stored = {one for (one,) in connection.execute("SELECT transaction_hash FROM transactions")}
    finally:
        connection.close()
    found = [f"{plan.name}: {count} transactions under {key}" for key, count in twice]
    found += [f"{plan.name} sent 0x{one.hex()} unwritten" for one in set(mined) - stored]
    return found
