from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from d2m_node.errors import UserError
from d2m_node.training.dataset_file import Partition
from d2m_node.training.datasets import load_samples
from d2m_node.training.partition import MIN_PART_SAMPLES, group_targets, partition_labels


def digits_file(folder: Path, tables: str = "") -> Path:
    path = folder / "dataset.toml"
    path.write_text(f'format = "digits"\ntags = ["digits"]\n{tables}')
    return path


def test_the_held_out_part_and_the_rest_are_disjoint_and_complete(tmp_path: Path) -> None:
    table = '[split]\npart = "{}"\nheld_out_count = 400\nseed = 5\n'
    train = load_samples(digits_file(tmp_path, table.format("train")))
    held_out = load_samples(digits_file(tmp_path, table.format("held-out")))
    whole = load_samples(digits_file(tmp_path))
    assert len(held_out.labels) == 400
    assert len(train.labels) == 1397
    joined = np.concatenate([train.inputs, held_out.inputs]).reshape(1797, 64)
    assert sorted(map(bytes, joined)) == sorted(map(bytes, whole.inputs.reshape(1797, 64)))


def test_a_split_that_leaves_nothing_to_train_on_is_refused(tmp_path: Path) -> None:
    table = '[split]\npart = "train"\nheld_out_count = 1797\nseed = 5\n'
    with pytest.raises(UserError, match=r"dataset\.toml: split\.held_out_count: 1797 of 1797"):
        load_samples(digits_file(tmp_path, table))


@given(
    labels=st.lists(st.integers(0, 9), min_size=60, max_size=300),
    parts=st.integers(1, 6),
    alpha_milli=st.sampled_from([1, 50, 500, 1_000_000]),
    seed=st.integers(0, 2**63 - 1),
)
def test_parts_are_disjoint_cover_all_and_are_never_too_small(
    labels: list[int], parts: int, alpha_milli: int, seed: int
) -> None:
    partition = Partition(alpha_milli=alpha_milli, parts=parts, index=0, seed=seed)
    found = partition_labels(np.array(labels), partition)
    assert len(found) == parts
    assert sorted(np.concatenate(found).tolist()) == list(range(len(labels)))
    assert min(map(len, found)) >= MIN_PART_SAMPLES
    assert all(np.array_equal(part, np.sort(part)) for part in found)


def test_the_same_seed_gives_the_same_parts_and_another_seed_others() -> None:
    labels = np.arange(600) % 10

    def cut(seed: int) -> list[list[int]]:
        partition = Partition(alpha_milli=500, parts=6, index=0, seed=seed)
        return [part.tolist() for part in partition_labels(labels, partition)]

    assert cut(1) == cut(1)
    assert cut(1) != cut(2)


def test_a_lower_alpha_gives_more_skewed_parts() -> None:
    labels = np.arange(6000) % 10

    def largest_share(alpha_milli: int) -> float:
        partition = Partition(alpha_milli=alpha_milli, parts=6, index=0, seed=3)
        parts = partition_labels(labels, partition)
        return float(np.mean([np.bincount(labels[part]).max() / len(part) for part in parts]))

    assert largest_share(100) > largest_share(1_000) > largest_share(100_000)


def test_the_index_chooses_the_part_of_the_train_side(tmp_path: Path) -> None:
    split = '[split]\npart = "train"\nheld_out_count = 400\nseed = 5\n'
    cut = "[partition]\nalpha_milli = 500\nparts = 6\nindex = {}\nseed = 1\n"
    parts = [load_samples(digits_file(tmp_path, split + cut.format(i))) for i in range(6)]
    assert sum(len(part.labels) for part in parts) == 1397
    assert len({part.inputs.tobytes() for part in parts}) == 6


@pytest.mark.parametrize(
    ("numbers", "complaint"),
    [
        ("parts = 6\nindex = 6", r"partition\.index must be below partition\.parts"),
        ("parts = 180\nindex = 0", r"partition\.parts: 1797 samples make at most 179 parts"),
        ("parts = 0\nindex = 0", r"partition\.parts: expected `int` >= 1"),
    ],
)
def test_an_impossible_partition_is_refused(tmp_path: Path, numbers: str, complaint: str) -> None:
    table = f"[partition]\nalpha_milli = 500\nseed = 1\n{numbers}\n"
    with pytest.raises(UserError, match=complaint):
        load_samples(digits_file(tmp_path, table))


@given(st.lists(st.integers(-(1 << 31), 1 << 31), min_size=20, max_size=90))
def test_targets_are_grouped_by_rank_into_tenths(values: list[int]) -> None:
    targets = np.array(values, dtype=np.int64)
    groups = group_targets(targets)
    assert sorted(np.unique(groups)) == list(range(10))
    counts = np.bincount(groups)
    assert counts.max() - counts.min() <= 1
    for low, high in pairwise(range(10)):
        assert targets[groups == low].max() <= targets[groups == high].min()


def test_parts_of_a_regression_are_skewed_by_target(tmp_path: Path) -> None:
    lines = [f"{value / 100},{value}" for value in range(-300, 300)]
    (tmp_path / "table.csv").write_text("x,y\n" + "\n".join(lines) + "\n")
    means = []
    for index in range(3):
        path = tmp_path / "dataset.toml"
        path.write_text(
            'format = "csv"\ntags = ["x"]\npath = "table.csv"\ntask = "regression"\n'
            'label = { column = "y" }\n'
            f"[partition]\nalpha_milli = 50\nparts = 3\nindex = {index}\nseed = 3\n"
        )
        means.append(load_samples(path).labels.mean() / 2**16)
    assert max(means) - min(means) > 60  # an even cut differs by some 10
