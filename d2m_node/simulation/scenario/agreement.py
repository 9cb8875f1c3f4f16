"""What the tables of a scenario must agree on, which one alone cannot tell."""

from d2m_node.errors import UserError
from d2m_node.simulation.scenario.plan import Scenario
from protocol.auction import AuctionMode
from protocol.errors import InvalidParams
from protocol.windows import REACTION_BLOCKS, validate_windows


def _check_reveal(blocks: int, least_blocks: int) -> None:
    if blocks < least_blocks:
        raise UserError(
            f"request.auction.reveal_blocks: is {blocks}; raise it to at least {least_blocks} "
            "(with chain.confirmations)"
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
    try:
        validate_windows(
            terms,
            scenario.params.seed_delay_blocks,
            lag_blocks=scenario.chain.confirmations,
        )
    except InvalidParams as exc:
        raise UserError(f"request.terms.{exc} (with chain.confirmations)") from exc
    least_blocks = scenario.chain.confirmations + REACTION_BLOCKS
    if scenario.request.mode is not AuctionMode.OPEN:
        _check_reveal(scenario.request.reveal_blocks, least_blocks)
    if scenario.request.validation_final_count >= scenario.data.validation_count:
        raise UserError(
            "request.validation.final_count: must be below data.validation_samples, "
            f"{scenario.data.validation_count}"
        )
