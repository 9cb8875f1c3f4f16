"""Who holds which data in a simulation."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from d2m_node.errors import UserError
from d2m_node.ports import Samples
from d2m_node.simulation.computing.federation import DIGITS_TEST_COUNT, DataPlan, share_out

DIGITS = 1797
PLAN = DataPlan(validation_count=500)


def fingerprints(samples: Samples) -> set[bytes]:
    return {
        image.tobytes() + bytes([label])
        for image, label in zip(samples.inputs, samples.labels, strict=True)
    }


def test_all_digits_are_shared_out_and_none_twice() -> None:
    federation = share_out(PLAN, 6, 1, None)
    held = [federation.validation, federation.test, *federation.sellers]
    assert sum(len(one.labels) for one in held) == DIGITS
    assert len(federation.test.labels) == DIGITS_TEST_COUNT
    assert len(federation.validation.labels) == 500
    distinct = set().union(*(fingerprints(one) for one in held))
    assert len(distinct) == DIGITS


def test_one_seed_shares_out_alike_and_another_one_does_not() -> None:
    first, again, other = (share_out(PLAN, 6, seed, None) for seed in (1, 1, 2))
    for one, two in zip(first.sellers, again.sellers, strict=True):
        np.testing.assert_array_equal(one.inputs, two.inputs)
    assert [len(one.labels) for one in first.sellers] != [len(one.labels) for one in other.sellers]
    assert fingerprints(first.test) != fingerprints(other.test)


def test_limits_are_kept() -> None:
    plan = replace(PLAN, test_count=20, per_seller=30)
    federation = share_out(plan, 4, 1, None)
    assert len(federation.test.labels) == 20
    assert all(len(one.labels) <= 30 for one in federation.sellers)


def test_what_is_held_out_for_choosing_settings_is_of_the_training_data_and_nobodys() -> None:
    plain, held = (share_out(replace(PLAN, held_out_count=n), 6, 1, None) for n in (0, 150))
    test = fingerprints(held.test)
    assert len(test) == 150
    assert not test & fingerprints(plain.test), "the test data are not touched"
    assert test <= fingerprints(plain.validation).union(*map(fingerprints, plain.sellers))
    assert not test & fingerprints(held.validation).union(*map(fingerprints, held.sellers))
    assert sum(len(one.labels) for one in held.sellers) == DIGITS - DIGITS_TEST_COUNT - 500 - 150


@pytest.mark.parametrize(
    ("changes", "sellers", "complaint"),
    [
        ({"validation_count": 1500}, 4, "data.validation_samples: 1500 of 1500"),
        ({"held_out_count": 1500}, 4, "data.held_out_samples: 1500 of 1500"),
        ({"held_out_count": 1000}, 4, "data.validation_samples: 500 of 500"),
        ({}, 200, "sizes.sellers: too many for the data"),
        ({"dataset": "mnist"}, 4, "--data DIR"),
    ],
)
def test_what_cannot_be_shared_out_is_one_line_that_names_the_field(
    changes: dict[str, object], sellers: int, complaint: str
) -> None:
    with pytest.raises(UserError, match=complaint):
        share_out(replace(PLAN, **changes), sellers, 1, None)


def test_benchmark_files_that_are_not_there_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"train-images-idx3-ubyte\.gz"):
        share_out(replace(PLAN, dataset="mnist"), 4, 1, tmp_path)
