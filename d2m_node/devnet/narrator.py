"""A job told as events, from what changed between two blocks."""

from collections.abc import Iterator, Mapping
from typing import Any

from d2m_node.rpc.views import ONE_Q20, PAYOUT_ROLES, SLASH_REASONS
from protocol.ballot import DecidedBallot
from protocol.deposits import DepositStatus
from protocol.digest import RoundHeader
from protocol.events import FinalDecided, RoundDecided
from protocol.job import JobPhase, JobState
from protocol.shares import find_cone_share, find_seller_share
from protocol.types import Address, Wei

Event = dict[str, Any]

BURNED = (DepositStatus.FORFEITED, DepositStatus.EQUIVOCATED)


class Narrator:
    """Turns two views of a job into events that a person or a program reads."""

    def __init__(self, names: Mapping[Address, str]) -> None:
        self._names = names

    def tell(self, before: JobState | None, after: JobState) -> Iterator[Event]:
        """Yield what happened between two views of one job, in the order of a job's life."""
        if before is None:
            yield {
                "event": "auction_opened",
                "job": after.job_id,
                "commit_end": after.commit_end,
                "reveal_end": after.reveal_end,
            }
        yield from self._tell_auction(before, after)
        yield from self._tell_enrolment(before, after)
        yield from self._tell_training(before, after)
        for slash in after.slashes[len(before.slashes) if before else 0 :]:
            yield {
                "event": "slashed",
                "node": self._name(slash.account),
                "amount_wei": slash.amount_wei,
                "reason": SLASH_REASONS[slash.reason],
            }
        yield from self._tell_deposits(before, after)

    def _tell_deposits(self, before: JobState | None, after: JobState) -> Iterator[Event]:
        old = before.deposits if before else {}
        for seller, deposit in after.deposits.items():
            if deposit.status in BURNED and (seller not in old or old[seller] != deposit):
                yield {
                    "event": "deposit_burned",
                    "seller": self._name(seller),
                    "amount_wei": deposit.amount_wei,
                    "reason": deposit.status.value,
                }

    def _name(self, account: Address) -> str:
        return self._names.get(account, "0x" + account.hex())

    def _tell_auction(self, before: JobState | None, after: JobState) -> Iterator[Event]:
        old = before.bids if before else {}
        for bidder, bid in after.bids.items():
            if bidder not in old:
                yield {
                    "event": "bid_committed",
                    "bidder": self._name(bidder),
                    "deposit_wei": bid.deposit_wei,
                }
            if bid.amount_wei is not None and (bidder not in old or not old[bidder].amount_wei):
                yield {
                    "event": "bid_revealed",
                    "bidder": self._name(bidder),
                    "amount_wei": bid.amount_wei,
                }
            if bid.reclaimed and (bidder not in old or not old[bidder].reclaimed):
                kept = after.price_wei if bidder == after.buyer else 0
                yield {
                    "event": "bid_reclaimed",
                    "bidder": self._name(bidder),
                    "amount_wei": bid.deposit_wei - kept,
                }
        if after.buyer is not None and (before is None or before.buyer is None):
            yield {
                "event": "auction_won",
                "buyer": self._name(after.buyer),
                "price_wei": after.price_wei,
            }

    def _tell_enrolment(self, before: JobState | None, after: JobState) -> Iterator[Event]:
        was = before.phase if before else JobPhase.AUCTION
        if was is after.phase:
            return
        if after.phase is JobPhase.CANCELLED:
            yield {"event": "job_cancelled", "job": after.job_id}
        elif after.phase is JobPhase.VALIDATION:
            yield {
                "event": "enrolled",
                "sellers": len(after.sellers),
                "cones": len(after.cones),
            }
        elif after.phase is JobPhase.TRAINING and was is JobPhase.VALIDATION:
            yield {
                "event": "training_started",
                "receipts": after.receipts.get(0, 0).bit_count(),
            }

    def _tell_training(self, before: JobState | None, after: JobState) -> Iterator[Event]:
        for one in after.undecided[len(before.undecided) if before else 0 :]:
            yield {"event": "attempt_undecided", "round": one.round_index}
        for round_index in after.voided[len(before.voided) if before else 0 :]:
            yield {"event": "round_void", "round": round_index}
        yield from self._tell_pool_call(before, after)
        told = {_name_decision(one) for one in before.decided} if before else set()
        for decided in after.decided:
            if _name_decision(decided) not in told:
                yield self._tell_decision(after, decided)
        if after.ended is not None and (before is None or before.ended is None):
            yield {
                "event": "training_ended",
                "outcome": after.ended.outcome,
                "rounds": after.ended.rounds_done,
                "accuracy": round(after.ended.last_utility / ONE_Q20, 4),
                "model_digest": "0x" + after.ended.model_digest.hex(),
            }

    def _tell_pool_call(self, before: JobState | None, after: JobState) -> Iterator[Event]:
        """Tell that the whole pool is asked about a decision, and what it answered."""
        was_called = (
            before is not None and before.ballot is not None and before.ballot.is_pool_called
        )
        is_called = after.ballot is not None and after.ballot.is_pool_called
        if is_called and not was_called:
            yield {
                "event": "pool_called",
                "round": after.decided[-1].decision.round_index,
                "reason": "appeal" if after.appeal is not None else "audit",
            }
        elif was_called and not is_called and before is not None:
            former = _name_decision(before.decided[-1])
            yield {
                "event": "pool_answered",
                "round": before.decided[-1].decision.round_index,
                "overturned": former not in {_name_decision(one) for one in after.decided},
            }

    def _tell_decision(self, job: JobState, decided: DecidedBallot) -> Event:
        decision, ballot = decided.decision, decided.ballot
        event: Event = {
            "event": "round_decided",
            "round": decision.round_index,
            "digest": "0x" + decision.digest.hex(),
            "votes": decision.votes,
            "votes_cast": len(ballot.openings),
            "mini_rounds": len(ballot.mini_rounds),
            "attempt": ballot.attempt,
            "wrong": self._name_cones(job, decision.wrong),
            "unopened": self._name_cones(job, decision.unopened),
            "block": decided.block_number,
        }
        if isinstance(decision, FinalDecided):
            event["event"] = "final_decided"
            event["accuracy"] = round(decision.utility / ONE_Q20, 4)
        else:
            event.update(self._tell_header(job, decision))
        return event

    def _tell_header(self, job: JobState, decision: RoundDecided) -> Event:
        header = RoundHeader.decode(decision.header)
        return {
            "accuracy": round(header.utility_after / ONE_Q20, 4),
            "sampled": self._name_sellers(job, header.sampled),
            "accepted": self._name_sellers(job, header.accepted),
        }

    def _name_cones(self, job: JobState, bitmap: int) -> list[str]:
        return [self._name(c.account) for i, c in enumerate(job.cones) if bitmap >> i & 1]

    def _name_sellers(self, job: JobState, bitmap: int) -> list[str]:
        return [self._name(s.account) for i, s in enumerate(job.sellers) if bitmap >> i & 1]

    def tell_settlement(self, job: JobState) -> Event:
        """Return the last event of a settled job; its lines sum to the price."""
        settled, ended = job.settled, job.ended
        assert settled is not None, "asked for once the job is settled"
        assert ended is not None, "a settled job's training has ended"
        payouts = [*self._list_payouts(job), *self._list_shares(job)]
        return {
            "event": "settled",
            "price_wei": settled.price_wei,
            "payouts": payouts,
            "refund_wei": settled.refund_wei,
            "not_paid": self._list_unpaid(
                job, {one["account"] for one in payouts if one["role"] != "batcher"}
            ),
            "rounds": settled.rounds_done,
            "accuracy": round(settled.last_utility / ONE_Q20, 4),
            "model_digest": "0x" + settled.model_digest.hex(),
            "slashed": [
                {
                    "node": self._name(slash.account),
                    "account": "0x" + slash.account.hex(),
                    "amount_wei": slash.amount_wei,
                    "reason": SLASH_REASONS[slash.reason],
                }
                for slash in job.slashes
            ],
        }

    def _list_payouts(self, job: JobState) -> Iterator[Event]:
        """Tell what was credited to all but the buyer."""
        for payout in job.payouts:
            if PAYOUT_ROLES[payout.role] != "buyer":
                role, weight = PAYOUT_ROLES[payout.role], payout.weight
                yield self._tell_payout(payout.payee, role, weight, payout.amount_wei)

    def _list_shares(self, job: JobState) -> Iterator[Event]:
        """Tell what is set aside in a job with many payees, for each of them to claim."""
        for cone in job.cones:
            share = find_cone_share(job, cone.account)
            if share is not None:
                yield self._tell_payout(cone.account, "cone", share.weight, share.amount_wei)
        for seller in job.sellers:
            share = find_seller_share(job, seller.account)
            if share is not None:
                yield self._tell_payout(seller.account, "seller", share.weight, share.amount_wei)

    def _tell_payout(self, payee: Address, role: str, weight: int, amount_wei: Wei) -> Event:
        return {
            "to": self._name(payee),
            "account": "0x" + payee.hex(),
            "role": role,
            "weight": weight,
            "amount_wei": amount_wei,
        }

    def _list_unpaid(self, job: JobState, paid: set[str]) -> list[str]:
        """Name who enrolled and earned nothing: no accepted update, or no vote with the decision.

        What the gas of batches cost is paid back to anybody; it is no pay.
        """
        enrolled = [*(seller.account for seller in job.sellers), *(c.account for c in job.cones)]
        return [self._name(account) for account in enrolled if "0x" + account.hex() not in paid]


def _name_decision(decided: DecidedBallot) -> tuple[int, bytes]:
    return decided.ballot.ballot_number, decided.decision.digest
