"""How much of the blob store a job may take: asked before a node enters it."""

from d2m_node.ports import Ports
from d2m_node.roles.refusals import Objection
from protocol.model import count_parameters
from protocol.request import MAX_BODY_BYTES, RequestBody
from protocol.samples import count_sample_bytes
from protocol.terms import JobTerms
from protocol.types import JobId
from protocol.update import TENSOR_HEADER_BYTES
from protocol.validation_set import bound_part_bytes

_WEIGHT_BYTES = 8


async def set_room_aside(ports: Ports, job_id: JobId, size_bytes: int) -> Objection | None:
    """Set room aside for a job that this node is about to enter, or say why there is none."""
    refusal = await ports.store.blobs.find_refusal(job_id, size_bytes)
    return None if refusal is None else Objection("room", refusal)


def estimate_cone_bytes(body: RequestBody, terms: JobTerms) -> int:
    """Return the most that a CONE node keeps of a job: all updates, all states, both parts."""
    updates = terms.rounds_max * terms.sellers_per_round * _tensor_bytes(body)
    parts = 2 * bound_part_bytes(body.validation.sample_count, count_sample_bytes(body.model))
    return updates + _state_bytes(body, terms) + parts + MAX_BODY_BYTES


def estimate_seller_bytes(body: RequestBody, terms: JobTerms) -> int:
    """Return the most that a seller keeps of a job: an update in each round, all states."""
    updates = terms.rounds_max * _tensor_bytes(body)
    return updates + _state_bytes(body, terms) + MAX_BODY_BYTES


def _state_bytes(body: RequestBody, terms: JobTerms) -> int:
    return terms.rounds_max * (_tensor_bytes(body) + _WEIGHT_BYTES * terms.sellers_max)


def _tensor_bytes(body: RequestBody) -> int:
    return TENSOR_HEADER_BYTES + 4 * count_parameters(body.model)
