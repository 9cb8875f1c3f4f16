"""What a job may take of the blob store is not less than what it takes."""

from dataclasses import replace

import msgspec
import numpy as np

from d2m_node.roles.room_need import estimate_cone_bytes, estimate_seller_bytes
from protocol.model import count_parameters
from protocol.request import encode_body
from protocol.samples import encode_samples
from protocol.update import TensorKind, encode_tensor
from protocol.validation_set import encode_part, select_part
from tests.support.job import BODY, TERMS


def test_the_estimate_covers_all_updates_states_and_parts_of_a_job() -> None:
    count = 1000
    validation = msgspec.structs.replace(BODY.validation, sample_count=count, final_count=1)
    body = msgspec.structs.replace(BODY, validation=validation)
    terms = replace(TERMS, rounds_max=6, sellers_per_round=3)
    tensor = len(encode_tensor(TensorKind.UPDATE, np.zeros(count_parameters(body.model), np.int32)))
    rows = encode_samples(np.zeros((count, *body.model.input_shape), dtype=np.uint8))
    labels = np.zeros(count, dtype=np.int64)
    indices = tuple(range(0, count, 2)), tuple(range(1, count, 2))
    parts = sum(len(encode_part(select_part(rows, labels, half))) for half in indices)
    states = 6 * (tensor + 8 * terms.sellers_max)
    request = len(encode_body(body))
    assert estimate_cone_bytes(body, terms) >= 18 * tensor + states + parts + request
    assert estimate_seller_bytes(body, terms) >= 6 * tensor + states + request
    assert estimate_cone_bytes(body, terms) <= 4 * (18 * tensor + states + parts) + 2**17
