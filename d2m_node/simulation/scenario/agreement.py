"""What the tables of a scenario must agree on, which one alone cannot tell."""

from d2m_node.errors import UserError
from d2m_node.simulation.scenario.plan import Scenario
from protocol.auction import AuctionMode
from protocol.errors import InvalidParams
from protocol.windows import (
    compute_least_reveal_blocks,
    find_short_windows,
    validate_windows,
)


def check_together(scenario: Scenario) -> None:
    """Check what one table alone cannot tell."""
    terms, sizes = scenario.request.terms, scenario.sizes
    if terms.sellers_min > sizes.sellers:
        raise UserError(f"request.terms.sellers_min: is {terms.sellers_min}, sizes.sellers is less")
    if terms.cones_min > sizes.cones:
        raise UserError(f"request.terms.cones_min: is {terms.cones_min}, sizes.cones is less")
    window = terms.update_commit_blocks * scenario.chain.block_seconds
    if scenario.training_seconds >= window:
        raise UserError(
            f"training_seconds: is {scenario.training_seconds:g}, and sellers have {window:g} "
            "seconds (request.terms.update_commit_blocks)"
        )
    _check_windows(scenario)
    if scenario.request.validation_final_count >= scenario.data.validation_count:
        raise UserError(
            "request.validation.final_count: must be below data.validation_samples, "
            f"{scenario.data.validation_count}"
        )


def _check_windows(scenario: Scenario) -> None:
    """Check that nodes can act in all windows, as far behind the chain as they are.

    Raises UserError that names all that are too short, and how long each must be.
    """
    terms, lag_blocks = scenario.request.terms, scenario.chain.confirmations
    seed_delay_blocks = scenario.params.seed_delay_blocks
    short = find_short_windows(terms, seed_delay_blocks, lag_blocks=lag_blocks)
    fixes = [
        f"request.terms.{name} = {least} (is {getattr(terms, name)})"
        for name, least in short.items()
    ]
    least_reveal, reveal = compute_least_reveal_blocks(lag_blocks), scenario.request.reveal_blocks
    if scenario.request.mode is not AuctionMode.OPEN and reveal < least_reveal:
        fixes.append(f"request.auction.reveal_blocks = {least_reveal} (is {reveal})")
    if fixes:
        raise UserError(
            f"windows are too short with chain.confirmations = {lag_blocks}; "
            f"set at least {', '.join(fixes)}"
        )
    try:
        validate_windows(terms, seed_delay_blocks, lag_blocks=lag_blocks)
    except InvalidParams as exc:
        raise UserError(f"request.terms.{exc}") from exc
