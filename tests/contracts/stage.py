"""A settlement with seller deposits on a stage: the test says how a job went."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import boa
from eth_utils.address import to_checksum_address
from eth_utils.crypto import keccak

from protocol.digest import compute_credit_leaf
from protocol.merkle import compute_proof
from protocol.params import ProtocolParams
from protocol.types import Address, Digest
from tests.contracts import reference
from tests.contracts.blocks import Blocks
from tests.contracts.vectors import TERMS
from tests.contracts.world import CHAIN, NO_ACCOUNT, PARAMS, Actor, make_actor

FINAL_BLOCK = 1_100
MODEL = keccak(b"model")
COURSE = (*[bytes(32)] * 6, *[0] * 5, [0] * 4, [0] * 8)
BUYER = make_actor("buyer").address


def account(name: str) -> str:
    return to_checksum_address(keccak(name.encode())[12:])


def raw(address: str) -> bytes:
    return bytes.fromhex(address[2:])


def make_params(token: str, changes: Mapping[str, int]) -> tuple[Any, ...]:
    own = {"audit_bps": 1000, "sweep_blocks": 50, "refund_cap_bps": 1000, "token": token}
    values = {**PARAMS, **own, **changes}
    return tuple(values[field.name] for field in fields(ProtocolParams))


PERMIT = keccak(
    b"Permit(address owner,address spender,uint256 value,uint256 nonce,uint256 deadline)"
)


def sign_permit(token: Any, owner: Actor, spender: str, amount: int) -> tuple[Any, ...]:
    """An EIP-2612 permit without an end: value, deadline, v, r, s."""
    deadline = 2**256 - 1
    words = (raw(spender), amount, token.nonces(owner.address), deadline)
    message = keccak(PERMIT + b"".join(reference.word(one) for one in (owner.raw, *words)))
    signature = reference.sign(owner.key, keccak(b"\x19\x01" + token.DOMAIN_SEPARATOR() + message))
    return amount, deadline, signature[64], signature[:32], signature[32:64]


@dataclass(kw_only=True)
class Ended:
    """How a job's training ended, and who took part."""

    currency: str
    price_wei: int = 10_007
    outcome: int = 1
    rounds_max: int = 50
    rounds_done: int = 40
    sellers_per_round: int = 5
    target: int = 1_000_000
    initial_utility: int = 100_000
    last_utility: int = 900_000
    is_final_evaluated: bool = True
    participation: Sequence[int] = (3, 2, 0)
    weights: Sequence[int] = (5, 1)
    spent_wei: Sequence[int] = (0, 0, 0)
    root: bytes | None = None
    """In place of the root over the weights."""
    accounts: Mapping[str, str] | None = None
    """Of some members, by name, in place of accounts without code."""

    def __post_init__(self) -> None:
        names = self.accounts or {}
        cones = [f"cone {i}" for i in range(len(self.participation))]
        sellers = [f"seller {i}" for i in range(len(self.weights))]
        self.cones = [names.get(name, account(name)) for name in cones]
        self.sellers = [names.get(name, account(name)) for name in sellers]
        changes = {
            "rounds_max": self.rounds_max,
            "sellers_per_round": self.sellers_per_round,
            "target": self.target,
        }
        self.terms = tuple({**TERMS, **changes}.values())
        if self.root is None and self.rounds_done:
            credits = list(zip(map(raw, self.sellers), self.weights, strict=True))
            self.root = reference.credit_root(credits)

    @property
    def leaves(self) -> list[tuple[str, int]]:
        if not self.rounds_done:
            return []
        return list(zip(self.sellers, self.weights, strict=True))

    def proof(self, index: int) -> tuple[bytes, ...]:
        leaves: list[Digest] = [
            compute_credit_leaf(i, Address(raw(seller)), v)
            for i, (seller, v) in enumerate(zip(self.sellers, self.weights, strict=True))
        ]
        return compute_proof(leaves, index)

    @property
    def result(self) -> tuple[Any, ...]:
        return (
            reference.terms_hash(self.terms), self.outcome, self.rounds_done, self.initial_utility,
            self.last_utility, self.is_final_evaluated, MODEL, self.root or bytes(32),
            sum(self.weights), FINAL_BLOCK, list(self.participation), list(self.spent_wei),
        )  # fmt: skip


class Play:
    """Settlement and SellerDeposits, for which one contract plays all others."""

    def __init__(self, deployers: Mapping[str, Any], token: str = "Plain", **changes: int) -> None:
        boa.env.evm.patch.chain_id = CHAIN
        self.blocks = Blocks()
        self.blocks.mine_to(FINAL_BLOCK + 1)
        self.stage = deployers["Stage"].deploy()
        self.token = deployers[f"Token{token}"].deploy()
        params = make_params(self.token.address, changes)
        at = self.stage.address
        self.settlement = deployers["Settlement"].deploy(params, at, at, at, at)
        self.deposits = deployers["SellerDeposits"].deploy(params, at, at, self.settlement.address)
        self.jobs = 0

    def currency(self, name: str) -> str:
        return NO_ACCOUNT if name == "ether" else str(self.token.address)

    def fund(self, account: str, currency: str, amount: int) -> None:
        if currency == NO_ACCOUNT:
            boa.env.set_balance(account, boa.env.get_balance(account) + amount)
        else:
            self.token.mint(account, amount)

    def balance(self, account: str, currency: str) -> int:
        if currency == NO_ACCOUNT:
            return int(boa.env.get_balance(account))
        return int(self.token.balanceOf(account))

    def end(self, ended: Ended) -> int:
        """Let the training of a new job end; return its number."""
        self.jobs += 1
        self.fund(self.stage.address, ended.currency, ended.price_wei)
        self.stage.enrol(
            self.jobs,
            b"".join(raw(cone) + bytes(32) for cone in ended.cones),
            b"".join(map(raw, ended.sellers)),
        )
        record = (
            BUYER, ended.price_wei, ended.currency, ended.result[0], bytes(32), bytes(32), 1, 1, 4,
        )  # fmt: skip
        self.stage.end(self.jobs, record, ended.result)
        return self.jobs

    def settle(self, ended: Ended) -> int:
        """Settle a new job; return its number."""
        job = self.end(ended)
        self.settlement.settle(job, ended.terms, COURSE, ended.leaves)
        return job

    def logs(self, name: str) -> list[Any]:
        """Events of the last call to the settlement."""
        return [log for log in self.settlement.get_logs() if type(log).__name__ == name]

    def claimable(self, payee: str, currency: str) -> int:
        return int(self.settlement.claimable(currency, payee))
