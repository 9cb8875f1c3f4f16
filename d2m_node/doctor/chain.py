"""The chain's endpoints, each by itself; the clock; the account's money."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

import trio

from d2m_node.chain.adapter import find_market
from d2m_node.chain.artifacts import load_artifact
from d2m_node.chain.bindings import decode_view, encode_view
from d2m_node.chain.client import RpcClient, open_client
from d2m_node.chain.json_rpc import Json, RequestRefused, parse_bytes, parse_quantity, to_hex
from d2m_node.clock import ClockReading
from d2m_node.doctor.check import Check, fail, ok, warn
from d2m_node.doctor.gas import WANTED_ROUNDS, needed_gas
from d2m_node.errors import ChainUnavailable, UserError, WrongNetwork
from d2m_node.settings import ChainSettings, NodeSettings
from protocol.types import Address, BlockNumber, Wei

PATIENCE_SECONDS: Final = 8.0


@dataclass(slots=True)
class Answer:
    """What one endpoint said, or why it said nothing useful."""

    name: str
    head: int | None = None
    timestamp: int = 0
    seconds: float = 0.0
    failure: str = ""
    fix: str = ""
    balance_wei: int | None = None
    gas_price_wei: int = 0
    stake_wei: int | None = None
    """What is free; the rest may be locked in jobs."""
    checked_at: float = field(default_factory=time.time)


async def check_chain(settings: NodeSettings, account: Address | None) -> list[Check]:
    """Ask every endpoint at once, then compare them, the clock and the account's money."""
    answers = [Answer(name=_name(url)) for url in settings.chain.rpc_urls]
    async with trio.open_nursery() as nursery:
        for url, answer in zip(settings.chain.rpc_urls, answers, strict=True):
            nursery.start_soon(_ask, url, settings.chain, account, answer)
    return [
        *check_endpoints(answers, settings.chain),
        check_clock(answers),
        *_check_money(answers, settings),
    ]


def _name(url: str) -> str:
    """Leave out the path: it often holds the operator's secret."""
    scheme, _, rest = url.partition("://")
    return f"{scheme}://{rest.partition('/')[0].rpartition('@')[2]}"


async def _ask(url: str, settings: ChainSettings, account: Address | None, answer: Answer) -> None:
    try:
        with trio.fail_after(PATIENCE_SECONDS):
            async with open_client([url], settings=settings.endpoints) as client:
                await _ask_client(client, settings, account, answer)
    except trio.TooSlowError:
        answer.failure = f"no answer within {PATIENCE_SECONDS:g} seconds"
        answer.fix = "check the endpoint, or take it out of chain.rpc_urls"
    except RequestRefused as exc:
        answer.failure, answer.fix = str(exc), "use an endpoint that serves this request"
    except ChainUnavailable as exc:
        answer.failure = str(exc)
        answer.fix = "check the endpoint, or take it out of chain.rpc_urls"
    except (WrongNetwork, UserError) as exc:
        answer.failure, answer.fix = str(exc), "correct the [chain] section of config.toml"


async def _ask_client(
    client: RpcClient, settings: ChainSettings, account: Address | None, answer: Answer
) -> None:
    start = trio.current_time()
    chain_id = parse_quantity(await client.call("eth_chainId"))
    answer.seconds = trio.current_time() - start
    if chain_id != settings.chain_id:
        raise WrongNetwork(f"serves chain {chain_id}, not chain {settings.chain_id}")
    head = await client.call("eth_getBlockByNumber", "latest", False)
    answer.checked_at = time.time()
    if not isinstance(head, dict):
        raise ChainUnavailable("does not know its newest block")
    answer.head = parse_quantity(head.get("number"))
    answer.timestamp = parse_quantity(head.get("timestamp"))
    market = await find_market(client, settings.market)  # the randomness, too
    answer.gas_price_wei = parse_quantity(await client.call("eth_gasPrice"))
    if account is None:
        return
    who = to_hex(account)
    answer.balance_wei = parse_quantity(await client.call("eth_getBalance", who, "latest"))
    answer.stake_wei = await _read_stake(client, market.bindings.address_of("StakePool"), account)


async def _read_stake(client: RpcClient, pool: Address, account: Address) -> int:
    artifact = load_artifact("StakePool")
    selector = encode_view(artifact, "holding_of")
    call: Json = {"to": to_hex(pool), "data": to_hex(selector + bytes(account).rjust(32, b"\0"))}
    answer = await client.call("eth_call", call, "latest")
    holding = decode_view(artifact, "holding_of", parse_bytes(answer))
    return int(holding[0])


def check_endpoints(answers: Sequence[Answer], settings: ChainSettings) -> Iterator[Check]:
    """Hold the endpoints against each other: one that serves makes the others' failures mild."""
    newest = max((one.head for one in answers if one.head is not None), default=0)
    is_any_fit = any(not one.failure for one in answers)
    for one in answers:
        name = f"endpoint {one.name}"
        if one.failure:
            make = warn if is_any_fit else fail
            yield make(name, one.failure, one.fix)
            continue
        assert one.head is not None, "an endpoint without a failure has told its head"
        lag = newest - one.head
        detail = f"block {one.head}, {one.seconds * 1000:.0f} ms, market and randomness are there"
        if lag > settings.endpoints.lag_blocks:
            yield warn(name, f"{lag} blocks behind the newest endpoint", "wait, or replace it")
        else:
            yield ok(name, detail)


def check_clock(answers: Sequence[Answer]) -> Check:
    """Compare this machine's clock with the newest block's time, and the endpoints' blocks."""
    name = "clock"
    readings = [
        ClockReading(
            own_seconds=int(one.checked_at),
            block_number=BlockNumber(one.head),
            block_seconds=one.timestamp,
        )
        for one in answers
        if one.head is not None
    ]
    if not readings:
        return warn(name, "no endpoint to compare with", "mend the endpoints first")
    youngest = min(readings, key=lambda one: one.age_seconds)
    fault = youngest.find_fault()
    if fault is None:
        return ok(name, f"the newest block is {max(youngest.age_seconds, 0)} s old")
    return (fail if fault.is_certain else warn)(name, fault.reason, fault.fix)


def _check_money(answers: Sequence[Answer], settings: NodeSettings) -> Iterator[Check]:
    found = next((one for one in answers if one.balance_wei is not None), None)
    if found is None or found.balance_wei is None:
        yield warn("gas", "the balance could not be read", "mend the endpoints and the key first")
        return
    yield check_gas(found.balance_wei, found.gas_price_wei, settings)
    if settings.roles.cone.enabled and found.stake_wei is not None:
        yield _check_stake(found.balance_wei, found.stake_wei, settings.roles.cone.stake_wei)


def check_gas(balance_wei: int, price_wei: int, settings: NodeSettings) -> Check:
    """Hold the balance against what the roles that are on may spend."""
    name = "gas"
    roles = [role for role, is_on in settings.roles.enabled().items() if is_on]
    gas = needed_gas(roles)
    needed_wei = gas * price_wei
    detail = f"{_ether(balance_wei)}, enough for "
    if not roles:
        return ok(name, f"{_ether(balance_wei)}; an observer sends next to nothing")
    if balance_wei < needed_wei // WANTED_ROUNDS:
        return fail(name, f"{_ether(balance_wei)} does not pay for one round",
                    f"send {_ether(needed_wei)} to the account")  # fmt: skip
    rounds = balance_wei * WANTED_ROUNDS // max(1, needed_wei)
    detail += f"about {min(rounds, 10**6)} rounds at {price_wei / 1e9:.2f} gwei"
    if rounds < WANTED_ROUNDS:
        return warn(name, detail, f"send {_ether(needed_wei)} to the account")
    return ok(name, detail)


def _check_stake(balance_wei: int, free_wei: int, wanted_wei: Wei) -> Check:
    name = "stake"
    missing = max(0, wanted_wei - free_wei)
    if missing > balance_wei:
        return warn(
            name,
            f"{_ether(free_wei)} free, roles.cone.stake_wei is {_ether(wanted_wei)}, "
            f"and the account has {_ether(balance_wei)}",
            f"send {_ether(missing)} to the account, unless so much is locked in jobs",
        )
    if missing:
        return ok(name, f"{_ether(free_wei)} free; {_ether(missing)} more is locked or will be")
    return ok(name, f"{_ether(free_wei)} free")


def _ether(amount_wei: int) -> str:
    return f"{amount_wei / 10**18:.6g} ether"
