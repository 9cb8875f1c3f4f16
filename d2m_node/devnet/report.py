"""How a devnet speaks: lines for a person, or one JSON object per line for a program."""

import json
from collections.abc import Callable
from typing import Any

from rich.console import Console
from rich.table import Table

Event = dict[str, Any]


class JsonReport:
    """One event per line."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def show(self, event: Event) -> None:
        """Print an event as JSON."""
        self._console.file.write(json.dumps(event) + "\n")
        self._console.file.flush()


class TextReport:
    """What a person wants to see."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def show(self, event: Event) -> None:
        """Print an event as a line, the settlement as a table."""
        if event["event"] == "settled":
            self._show_settlement(event)
            return
        line = _LINES[event["event"]](event)
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)

    def _show_settlement(self, event: Event) -> None:
        table = Table(title="Settlement", title_justify="left")
        table.add_column("to")
        table.add_column("role")
        table.add_column("weight", justify="right")
        table.add_column("wei", justify="right")
        for payout in event["payouts"]:
            amount = str(payout["amount_wei"])
            table.add_row(payout["to"], payout["role"], str(payout["weight"]), amount)
        table.add_row("buyer", "refund", "", str(event["refund_wei"]), end_section=True)
        paid = sum(payout["amount_wei"] for payout in event["payouts"]) + event["refund_wei"]
        table.add_row("sum", "", "", str(paid))
        table.add_row("price", "", "", str(event["price_wei"]))
        self._console.print(table)
        for slash in event["slashed"]:
            line = f"slashed: {slash['node']} lost {ether(slash['amount_wei'])} ({slash['reason']})"
            self._console.print(line, markup=False, highlight=False)
        if event["not_paid"]:
            line = f"not paid: {', '.join(event['not_paid'])}"
            self._console.print(line, markup=False, highlight=False)
        self._console.print(
            f"{event['rounds']} rounds, accuracy {event['accuracy']:.2%}, "
            f"model {event['model_digest']}",
            markup=False,
            highlight=False,
            soft_wrap=True,
        )


def ether(amount_wei: int) -> str:
    """Write an amount for a person."""
    return f"{amount_wei / 10**18:.6f} ETH"


def _describe_round(event: Event) -> str:
    line = (
        f"round {event['round']}: accuracy {event['accuracy']:.2%}, "
        f"{event['votes']} of {event['votes_cast']} votes in {event['mini_rounds']} mini-round(s), "
        f"accepted {', '.join(event['accepted']) or 'nobody'}"
    )
    if event["wrong"]:
        line += f"; wrong votes: {', '.join(event['wrong'])}"
    if event["unopened"]:
        line += f"; not opened: {', '.join(event['unopened'])}"
    return line


_LINES: dict[str, Callable[[Event], str]] = {
    "chain_started": lambda e: f"chain {e['chain_id']} at {e['url']}, market {e['market']}",
    "nodes_started": lambda e: (
        f"{e['count']} nodes started: {e['buyers']} buyers, {e['sellers']} sellers, "
        f"{e['cones']} CONE nodes; data in {e['folder']}"
    ),
    "market_ready": lambda e: (
        f"all joined: {e['datasets']} datasets registered, {e['stakes']} stakes deposited"
    ),
    "auction_opened": lambda e: (
        f"auction {e['job']} open: sealed bids until block {e['commit_end']}, "
        f"reveals until {e['reveal_end']}"
    ),
    "bid_committed": lambda e: f"{e['bidder']} bids (sealed), deposit {ether(e['deposit_wei'])}",
    "bid_revealed": lambda e: f"{e['bidder']} reveals its bid: {ether(e['amount_wei'])}",
    "auction_won": lambda e: f"{e['buyer']} wins at {ether(e['price_wei'])}",
    "bid_reclaimed": lambda e: f"{e['bidder']} takes back {ether(e['amount_wei'])}",
    "enrolled": lambda e: f"{e['sellers']} sellers and {e['cones']} CONE nodes enrolled",
    "job_cancelled": lambda e: f"job {e['job']} cancelled; the money goes back",
    "training_started": lambda e: (
        f"training starts: {e['receipts']} CONE nodes hold the validation data"
    ),
    "round_decided": _describe_round,
    "final_decided": lambda e: (
        f"final evaluation: accuracy {e['accuracy']:.2%} on unseen data, {e['votes']} of "
        f"{e['votes_cast']} votes in {e['mini_rounds']} mini-round(s)"
        + (f"; wrong votes: {', '.join(e['wrong'])}" if e["wrong"] else "")
    ),
    "pool_called": lambda e: (
        f"round {e['round']}: {e['reason']}: the whole pool checks the decision"
    ),
    "pool_answered": lambda e: (
        f"round {e['round']}: the decision {'is overturned' if e['overturned'] else 'stands'}"
    ),
    "attempt_undecided": lambda e: f"round {e['round']}: undecided, another attempt",
    "round_void": lambda e: f"round {e['round']}: void",
    "slashed": lambda e: f"{e['node']} slashed {ether(e['amount_wei'])}: {e['reason']}",
    "deposit_burned": lambda e: (
        f"deposit of {e['seller']} burned, {ether(e['amount_wei'])}: {e['reason']}"
    ),
    "training_ended": lambda e: (
        f"training ended after {e['rounds']} rounds, accuracy {e['accuracy']:.2%}"
    ),
    "claimed": lambda e: f"{e['payees']} payees claimed {ether(e['amount_wei'])}",
    "deposits_returned": lambda e: (
        f"{e['sellers']} sellers took back deposits of {ether(e['amount_wei'])}"
    ),
    "model_saved": lambda e: f"model saved to {e['path']}, checked against the chain",
    "staying_up": lambda _: "the market stays up; Ctrl-C ends it",
}
