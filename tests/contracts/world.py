"""The deployed contracts with their actors, and a job that can be driven step by step."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import boa
import rlp
from eth_keys.datatypes import PrivateKey
from eth_utils.address import to_checksum_address
from eth_utils.crypto import keccak

from tests.contracts import reference
from tests.contracts.blocks import Blocks, header_of
from tests.contracts.vectors import TERMS

SOURCES = Path(__file__).parents[2] / "contracts"
NAMES = (
    "PeerRegistry",
    "DataRegistry",
    "StakePool",
    "SellerDeposits",
    "Market",
    "Enrolment",
    "Statements",
    "Ballots",
    "Rounds",
    "Appeals",
    "Settlement",
)
CHAIN = 31337
ONE_ETHER = 10**18
BURN_ACCOUNT = "0x000000000000000000000000000000000000dEaD"
TAGS = sorted([keccak(b"digits"), keccak(b"images")])
CONTRACTS_OF_MARKET = (
    "PeerRegistry",
    "DataRegistry",
    "StakePool",
    "SellerDeposits",
    "Enrolment",
    "Statements",
    "Ballots",
    "Rounds",
    "Appeals",
    "Settlement",
)
"""In the order of `IMarket.Contracts`."""
BODY_HASH = keccak(b"request body")
CHAIN_LENGTH = 40
STRANGER = 2**256 - 1
"""The index of whoever is not in a pool."""
NO_ACCOUNT = "0x" + 40 * "0"
ETHER = NO_ACCOUNT
NO_PERMIT: tuple[()] = ()

PARAMS = {
    "cone_bps": 3000,
    "floor_bps": 5000,
    "bid_forfeit_bps": 1000,
    "slash_wrong_bps": 5000,
    "slash_noreveal_bps": 5000,
    "min_stake_wei": ONE_ETHER,
    "unbonding_blocks": 10,
    "max_window_blocks": 100,
    "seed_delay_blocks": 1,
    "retries": 1,
    "finals_max": 3,
    "audit_bps": 1000,
    "sweep_blocks": 1000,
    "refund_cap_bps": 2000,
    "token": NO_ACCOUNT,
}


@dataclass(frozen=True)
class Actor:
    """An account with its key."""

    key: PrivateKey

    @property
    def raw(self) -> bytes:
        return self.key.public_key.to_canonical_address()

    @property
    def address(self) -> str:
        return to_checksum_address(self.raw)


def make_actor(role: str) -> Actor:
    actor = Actor(PrivateKey(keccak(role.encode())))
    boa.env.set_balance(actor.address, 1_000_000 * ONE_ETHER)
    return actor


def predict_address(deployer: str, nonce: int) -> str:
    encoded = rlp.encode([bytes.fromhex(deployer[2:]), nonce])
    return to_checksum_address(keccak(encoded)[12:])


class Logged:
    """A contract whose `get_logs` are those of the last call that logged something.

    The contract's own are those of the last call, and a look at a view would hide them. Every log
    is shown to ``see`` as well.
    """

    def __init__(self, contract: Any, see: Callable[[Any], None]) -> None:
        self._contract = contract
        self._see = see
        self._logs: list[Any] = []

    def __getattr__(self, name: str) -> Any:
        member = getattr(self._contract, name)
        return self._watch(member) if callable(member) else member

    @property
    def unwrapped(self) -> Any:
        return self._contract

    def get_logs(self) -> list[Any]:
        return self._logs

    def _watch(self, function: Any) -> Any:
        def call(*arguments: Any, **options: Any) -> Any:
            answer = function(*arguments, **options)
            logs = self._contract.get_logs()
            for entry in logs:
                self._see(entry)
            self._logs = logs or self._logs
            return answer

        return call


class World:
    """All contracts, which know each other, on a chain of their own."""

    def __init__(self, deployers: Mapping[str, Any], **changes: Any) -> None:
        boa.env.evm.patch.chain_id = CHAIN
        self.blocks = Blocks()
        self.courses: dict[int, list[tuple[Any, ...]]] = {}
        self.seen: list[tuple[int, Any]] = []
        """Every event of the calls that were made through this world, with its block."""
        self.params = {**PARAMS, **changes}
        deployer = make_actor("deployer")
        nonce = boa.env.evm.vm.state.get_nonce(deployer.raw)
        at = {name: predict_address(deployer.address, nonce + i) for i, name in enumerate(NAMES)}
        params = tuple(self.params.values())
        members = [name for name in NAMES if name != "Market"]
        order = sorted(members, key=CONTRACTS_OF_MARKET.index)
        arguments = {
            "PeerRegistry": (),
            "DataRegistry": (),
            "StakePool": (params, at["Market"], at["Enrolment"], at["Rounds"]),
            "SellerDeposits": (params, at["Market"], at["Enrolment"], at["Settlement"]),
            "Market": (params, tuple(at[name] for name in order)),
            "Enrolment": (
                params,
                *(at[name] for name in ("Market", "DataRegistry", "StakePool")),
                *(at[name] for name in ("SellerDeposits", "Rounds")),
            ),
            "Statements": (at["Market"], at["Ballots"]),
            "Ballots": (params, at["Market"], at["Rounds"]),
            "Rounds": (
                params,
                *(at[name] for name in ("Market", "StakePool", "Enrolment", "Statements")),
                *(at[name] for name in ("Ballots", "Appeals", "Settlement")),
            ),
            "Appeals": (params, at["Market"], at["Enrolment"], at["Rounds"]),
            "Settlement": (
                params,
                *(at[name] for name in ("Market", "Enrolment", "Rounds", "SellerDeposits")),
            ),
        }
        with boa.env.prank(deployer.address):
            contracts = {
                name: Logged(deployers[name].deploy(*arguments[name]), self._see) for name in NAMES
            }
        assert {name: contract.address for name, contract in contracts.items()} == at
        self.peers = contracts["PeerRegistry"]
        self.data = contracts["DataRegistry"]
        self.stakes = contracts["StakePool"]
        self.deposits = contracts["SellerDeposits"]
        self.market = contracts["Market"]
        self.enrolment = contracts["Enrolment"]
        self.statements = contracts["Statements"]
        self.ballots = contracts["Ballots"]
        self.rounds = contracts["Rounds"]
        self.appeals = contracts["Appeals"]
        self.settlement = contracts["Settlement"]
        self.market_raw = bytes.fromhex(self.market.address[2:])
        self.buyer = make_actor("buyer")
        self.other_buyer = make_actor("other buyer")
        self.stranger = make_actor("stranger")

    def _see(self, entry: Any) -> None:
        """Remember all events, and apart the courses that Rounds announces: callers bring them."""
        self.seen.append((self.blocks.number, entry))
        if type(entry).__name__ == "CourseChanged":
            self.courses.setdefault(int(entry.job), []).append(tuple(entry.course))

    def balance(self, account: str) -> int:
        return int(boa.env.get_balance(account))

    @property
    def burned_wei(self) -> int:
        return self.balance(BURN_ACCOUNT)

    def bid_commitment(
        self, auction: int, bidder: Actor, amount_wei: int, terms: Sequence[int], salt: bytes
    ) -> bytes:
        request = reference.request_hash(terms, BODY_HASH)
        return reference.tagged(
            "bid", CHAIN, self.market_raw, auction, bidder.raw, amount_wei, request, salt
        )


@dataclass(frozen=True)
class Ballot:
    """A vote of one node."""

    digest: bytes
    trace: bytes


HONEST_TRACE = keccak(b"honest trace")
NO_DATA = Ballot(keccak(b"no data"), bytes(32))


@dataclass
class Job:
    """One job with its pool and sellers; every method is a step that a node could take."""

    world: World
    seller_count: int = 5
    cone_count: int = 5
    price_wei: int = 10 * ONE_ETHER
    changes: dict[str, int] = field(default_factory=dict)
    number: int = 0
    previous_digest: bytes = bytes(32)
    credits: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.terms = {**TERMS, "stake_wei": 4 * ONE_ETHER, **self.changes}
        self.terms_list = tuple(self.terms.values())
        self.sellers = [make_actor(f"seller {i}") for i in range(self.seller_count)]
        self.cones = [make_actor(f"cone {i}") for i in range(self.cone_count)]
        self.chains = [
            reference.ticket_chain(keccak(b"tip" + cone.raw), CHAIN_LENGTH) for cone in self.cones
        ]
        self.credits = [0] * self.seller_count

    def prepare(self) -> "Job":
        """Stake and register before any auction is open."""
        world = self.world
        for cone in self.cones:
            world.stakes.deposit(value=2 * self.terms["stake_wei"], sender=cone.address)
        self.datasets = [
            world.data.register_dataset(TAGS, keccak(b"metadata"), 0, 0, sender=seller.address)
            for seller in self.sellers
        ]
        world.blocks.mine()
        return self

    def open_auction(self) -> "Job":
        """Open an auction in which the buyer alone has bid."""
        world, salt = self.world, keccak(b"salt")
        self.number = world.market.auction_count() + 1
        commitment = world.bid_commitment(
            self.number, world.buyer, self.price_wei, self.terms_list, salt
        )
        world.market.open_auction(
            self.number, TAGS, 0, ETHER, ONE_ETHER, ONE_ETHER, 5, 5, commitment,
            self.price_wei, NO_PERMIT, value=self.price_wei, sender=world.buyer.address,
        )  # fmt: skip
        world.blocks.mine(6)
        world.market.reveal_bid(
            self.number, self.price_wei, self.terms_list, BODY_HASH, salt,
            sender=world.buyer.address,
        )  # fmt: skip
        world.blocks.mine(5)
        return self

    def close_auction(self) -> "Job":
        self.world.market.close_auction(self.number)
        return self

    def enrol(self) -> "Job":
        for index in range(self.seller_count):
            self.enrol_seller(index)
        for cone, chain in zip(self.cones, self.chains, strict=True):
            self.world.enrolment.enrol_cone(
                self.number, self.terms_list, chain[0], sender=cone.address
            )
        return self

    def enrol_seller(self, index: int, **changes: Any) -> None:
        """Enrol one seller, with its deposit unless told otherwise."""
        arguments = {
            "terms": self.terms_list,
            "dataset_id": self.datasets[index],
            "permits": NO_PERMIT,
            "value": self.terms["seller_deposit_wei"],
            **changes,
        }
        value = arguments.pop("value")
        self.world.enrolment.enrol_seller(
            self.number, *arguments.values(), value=value, sender=self.sellers[index].address
        )

    @property
    def applications(self) -> tuple[list[str], list[tuple[str, bytes]]]:
        """Sellers and CONE nodes in the order in which `enrol` lets them apply."""
        roots = [chain[0] for chain in self.chains]
        cones = [(cone.address, root) for cone, root in zip(self.cones, roots, strict=True)]
        return [seller.address for seller in self.sellers], cones

    def close_enrolment(self, header: bytes = b"") -> "Job":
        self.world.blocks.mine_past(self.world.market.job_of(self.number).enrolment_end)
        self.world.enrolment.close_enrolment(
            self.number, self.terms_list, *self.applications, header
        )
        self.validation_end = self.world.blocks.number + self.terms["validation_blocks"]
        return self

    @property
    def course(self) -> tuple[Any, ...]:
        """What calls bring along: the last course that was announced."""
        return self.world.courses[self.number][-1]

    def receipt(self, index: int, part: int) -> tuple[int, bytes, bytes]:
        message = reference.receipt_message(CHAIN, self.world.market_raw, self.number, part)
        return index, *reference.sign_compact(self.cones[index].key, message)

    def submit_receipts(self, part: int, indices: Iterable[int] | None = None) -> "Job":
        chosen = range(self.cone_count) if indices is None else indices
        entries = [self.receipt(index, part) for index in chosen]
        self.world.statements.submit_receipts(self.number, part, entries)
        return self

    def start_training(self) -> "Job":
        self.world.blocks.mine_past(self.validation_end + self.terms["decision_blocks"])
        self.world.rounds.start_training(self.number, self.terms_list, self.course)
        return self

    def train(self) -> "Job":
        """Take every step up to the first round."""
        self.prepare().open_auction().close_auction().enrol().close_enrolment()
        return self.submit_receipts(0).start_training()

    @property
    def ballot(self) -> Any:
        return self.world.ballots.ballot(self.number)

    @property
    def mini(self) -> int:
        ballot = self.ballot
        return int((ballot.kind << 32) | (ballot.attempt << 16) | ballot.m)

    @property
    def seed_header(self) -> bytes:
        """Header of the block whose randomness drew the current attempt."""
        return header_of(self.ballot.availability_end + self.world.params["seed_delay_blocks"])

    def ticket(self, index: int) -> int:
        ballot = self.ballot
        first_mini = (self.mini >> 16) << 16
        number = ballot.availability_end + self.world.params["seed_delay_blocks"]
        seed = reference.tagged(
            "es", CHAIN, self.world.market_raw, self.number, ballot.round_index, first_mini,
            keccak(b"randomness" + number.to_bytes(8, "big")),
        )  # fmt: skip
        element = self.chains[index][ballot.ballot_number]
        return int.from_bytes(reference.tagged("ticket", self.cones[index].raw, element, seed))

    def set_size(self, m: int) -> int:
        size = min(self.cone_count, self.terms["first_set_size"])
        for _ in range(m):
            grown = -(-size * self.terms["growth_numerator"] // self.terms["growth_denominator"])
            size = min(self.cone_count, grown)
        return size

    def drawn(self) -> list[int]:
        """Nodes that vote in the current mini-round."""
        m = self.ballot.m
        if self.ballot.is_pool_called:
            return [i for i in range(self.cone_count) if not (self.ballot.opened >> i) & 1]
        thresholds = [self.set_size(i) * 2**256 // self.cone_count for i in range(m + 1)]
        low = thresholds[-2] if m > 0 else 0
        return [i for i in range(self.cone_count) if low <= self.ticket(i) < thresholds[-1]]

    def commitment(self, index: int, vote: Ballot) -> bytes:
        return reference.tagged(
            "vote", CHAIN, self.world.market_raw, self.number, self.ballot.round_index, self.mini,
            self.cones[index].raw, vote.digest, vote.trace, self.element(index),
        )  # fmt: skip

    def element(self, index: int) -> bytes:
        """The chain element of a node for the current ballot."""
        return self.chains[index][self.ballot.ballot_number]

    def signed_commit(self, index: int, vote: Ballot) -> tuple[bytes, bytes, bytes]:
        commitment = self.commitment(index, vote)
        message = reference.vote_message(
            CHAIN, self.world.market_raw, self.number, self.ballot.round_index, self.mini,
            commitment,
        )  # fmt: skip
        return commitment, *reference.sign_compact(self.cones[index].key, message)

    def commit(self, votes: Mapping[int, Ballot], sender: int | None = None) -> list[int]:
        """Commit in one batch; return the nodes whose commitment was recorded."""
        self.world.blocks.mine_past(self.ballot.seed_block)
        entries = [self.signed_commit(index, votes[index]) for index in sorted(votes)]
        account = self.world.stranger if sender is None else self.cones[sender]
        self.world.ballots.submit_commits(
            self.number,
            STRANGER if sender is None else sender,
            sum(1 << index for index in votes),
            entries,
            sender=account.address,
        )
        (recorded,) = self.world.ballots.get_logs()
        return [i for i in range(self.cone_count) if (recorded.members >> i) & 1]

    def open(
        self,
        votes: Mapping[int, Ballot],
        batch: Sequence[int],
        silent: Iterable[int] = (),
        batch_index: int = 0,
        sender: int | None = None,
    ) -> None:
        """Open a batch, all but what the silent nodes committed."""
        self.world.blocks.mine_past(self.ballot.commit_end)
        kinds = sorted({(vote.digest, vote.trace) for vote in votes.values()})
        entries = []
        for index in batch:
            vote = votes[index]
            if index in set(silent):
                entries.append((len(kinds), self.commitment(index, vote)))
            else:
                place = kinds.index((vote.digest, vote.trace))
                entries.append((place, self.element(index)))
        account = self.world.stranger if sender is None else self.cones[sender]
        self.world.ballots.submit_openings(
            self.number,
            STRANGER if sender is None else sender,
            batch_index,
            sum(1 << index for index in batch),
            entries,
            kinds,
            self.seed_header,
            sender=account.address,
        )

    def vote(self, votes: Mapping[int, Ballot], silent: Iterable[int] = ()) -> None:
        """Commit and open, and wait until the ballot can be counted."""
        if votes:
            batch = self.commit(votes)
            self.open(votes, batch, silent)
        self.world.blocks.mine_past(self.ballot.open_end)

    def tally(
        self, groups: Iterable[tuple[int, Ballot]], header: bytes = b"", sender: str | None = None
    ) -> None:
        """Count; groups are (mini-round, vote) in any order."""
        self.world.rounds.tally(
            self.number,
            self.terms_list,
            self.course,
            sorted({(m, vote.digest, vote.trace) for m, vote in groups}),
            header,
            sender=sender or self.world.stranger.address,
        )

    def round_header(self, utility_after: int = 500_000, **changes: Any) -> bytes:
        """The honest header of the current round: sellers 0..K-1 sampled, 0 and 1 accepted."""
        sampled = self.terms["sellers_per_round"]
        credits = [v + (1 if i < 2 else 0) for i, v in enumerate(self.credits)]
        leaves = [(seller.raw, v) for seller, v in zip(self.sellers, credits, strict=True)]
        fields: dict[str, Any] = {
            "job": self.number,
            "round_index": self.ballot.round_index,
            "model_digest": self.model_digest(self.ballot.round_index),
            "sampler_digest": keccak(b"sampler"),
            "sampled": (1 << sampled) - 1,
            "available": (1 << sampled) - 1,
            "accepted": 0b11,
            "utility_before": 100_000,
            "utility_after": utility_after,
            "utilities": [1000] * sampled,
            "chain": CHAIN,
            "market": self.world.market_raw,
            "previous_digest": self.previous_digest,
            "credit_root": reference.credit_root(leaves),
            "credit_sum": sum(credits),
        }
        return reference.round_header(**{**fields, **changes})

    def final_vote(self, utility: int, initial_utility: int = 90_000) -> bytes:
        return reference.final_vote(
            chain=CHAIN, market=self.world.market_raw, job=self.number,
            round_index=self.ballot.round_index,
            model_digest=self.model_digest(self.ballot.round_index),
            initial_utility=initial_utility, utility=utility,
        )  # fmt: skip

    def model_digest(self, round_index: int) -> bytes:
        return keccak(b"model" + bytes([round_index]))

    def decide(self, header: bytes) -> None:
        """Let all nodes vote for a header, mini-round by mini-round, until it is decided."""
        vote = Ballot(keccak(header), HONEST_TRACE)
        ballot_number = self.ballot.ballot_number
        groups: list[tuple[int, Ballot]] = []
        while self.ballot.ballot_number == ballot_number and self.outcome == 0:
            drawn = self.drawn()
            if drawn:
                groups.append((self.ballot.m, vote))
            self.vote(dict.fromkeys(drawn, vote))
            self.tally(groups, header)

    def decide_round(self, utility_after: int = 500_000) -> bytes:
        """Decide a round with the honest header."""
        header = self.round_header(utility_after)
        self.decide(header)
        self.previous_digest = keccak(header)
        self.credits = [v + (1 if i < 2 else 0) for i, v in enumerate(self.credits)]
        return header

    def decide_final(self, utility: int) -> None:
        """Serve the final data and decide the final evaluation."""
        if self.world.statements.receipts(self.number, 1) == 0:
            self.submit_receipts(1)
        self.decide(self.final_vote(utility))

    @property
    def outcome(self) -> int:
        return int(self.result.outcome)

    @property
    def result(self) -> Any:
        """How the training stands."""
        return self.world.rounds.training_result(self.number, self.course)

    @property
    def leaves(self) -> list[tuple[str, int]]:
        """Sellers and credits; none before the first decided round."""
        if not any(self.credits):
            return []
        return [(seller.address, v) for seller, v in zip(self.sellers, self.credits, strict=True)]

    def settle(self) -> None:
        self.world.blocks.mine_past(self.result.final_block)
        self.world.settlement.settle(self.number, self.terms_list, self.course, self.leaves)
