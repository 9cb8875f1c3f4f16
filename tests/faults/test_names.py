"""How the watched node names blobs, by their bytes alone."""

import numpy as np
import pytest

from d2m_node.sealing import seal
from d2m_node.simulation.faulty import name_blob
from protocol.digest import encode_sampler_state
from protocol.osmd import initial_state
from protocol.request import encode_body
from protocol.update import TensorKind, encode_tensor
from tests.support.job import BODY

WEIGHTS = encode_sampler_state(initial_state(5, 4))
PARAMETERS = encode_tensor(TensorKind.PARAMETERS, np.arange(8, dtype=np.int32))
UPDATE = encode_tensor(TensorKind.UPDATE, np.arange(8, dtype=np.int32))


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (PARAMETERS, "parameters"),
        (UPDATE, "update"),
        (WEIGHTS, "sampler"),
        (encode_body(BODY), "body"),
        (seal(WEIGHTS, b"state").data, "sealed"),
        (seal(PARAMETERS, b"state").data, "sealed"),
    ],
)
def test_a_blob_is_named_by_what_it_is(data: bytes, name: str) -> None:
    assert name_blob(data) == name
