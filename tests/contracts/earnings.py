"""What accounts earned by the fold of the events, against what is in their purses."""

from typing import Any

from protocol import events
from protocol.earnings import Effect, list_positions, sum_by_currency
from protocol.events import MoneySwept
from protocol.types import NO_ACCOUNT, Address
from tests.contracts.folding import fold_entries, params_of
from tests.contracts.world import ETHER


def check_earnings(world: Any) -> None:
    """At the end of all jobs, every purse has grown by what its owner earned net, to the wei."""
    told = [one for one in world.history if hasattr(events, type(one[1]).__name__)]  # no transfers
    state = fold_entries(told, world.blocks.number)
    swept = [entry for _, entry in world.history if type(entry).__name__ == MoneySwept.__name__]
    for actor in world.actors:
        positions = list_positions(state.jobs.values(), Address(actor.raw), params_of(world))
        assert all(one.held_wei == 0 for one in positions)
        assert all(one.due_wei == 0 for one in positions)
        for currency in world.currencies:
            key = NO_ACCOUNT if currency == ETHER else bytes.fromhex(currency[2:])
            row = sum_by_currency(positions).get(Address(key), dict.fromkeys(Effect, 0))
            assert row[Effect.PUT_UP] >= row[Effect.RETURNED]
            net = row[Effect.EARNED] - row[Effect.SPENT]
            burned = sum(
                one.amount_wei
                for one in swept
                if (one.payee, one.currency) == (actor.address, currency)
            )
            before = world.purses[actor.address, currency]
            assert world.held(actor.address, currency) - before == net - burned
