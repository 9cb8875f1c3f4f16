"""What a decided round leads to."""

from dataclasses import replace

from protocol.digest import RoundHeader, decode_sampler_state
from protocol.round import BallotResult, ModelState, apply_header
from protocol.update import TensorKind, decode_tensor


def follow(state: ModelState, result: BallotResult) -> ModelState:
    """Return the state after a decided result, from the bytes that other nodes would fetch."""
    parameters, sampler = result.blobs
    return replace(
        apply_header(state, RoundHeader.decode(result.opening)),
        parameters=decode_tensor(parameters, TensorKind.PARAMETERS, len(state.parameters)),
        sampler=decode_sampler_state(sampler, len(state.credits)),
        previous_parameters=state.parameters,
    )
