"""What is wrong with a seller's data before it trains honestly on them: pure, from a seed.

`label-flip` is an attack. `noisy` and `poor` are no attacks: sellers whose data are worth less.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final

import numpy as np

from d2m_node.ports import Samples
from protocol.hashing import hash_domain

MIN_POOR_SAMPLES: Final = 4
POOR_SHARE: Final = 10
"""A seller with poor data has one sample of so many."""

Corrupt = Callable[[Samples, int, bytes], Samples]
"""Samples, the number of classes and a seed of 32 bytes to other samples."""


def flip_labels(samples: Samples, classes: int, seed: bytes) -> Samples:  # noqa: ARG001
    """Call every class by its mirror image: c becomes classes - 1 - c."""
    return Samples(inputs=samples.inputs, labels=classes - 1 - samples.labels)


def randomise_labels(samples: Samples, classes: int, seed: bytes) -> Samples:
    """Draw half of the labels at random. Source: the noisy sellers of MECHANISM 13.1."""
    generator = _generator("noisy", seed)
    count = len(samples.labels)
    chosen = generator.permutation(count)[: count // 2]
    labels = samples.labels.copy()
    labels[chosen] = generator.integers(0, classes, len(chosen))
    return Samples(inputs=samples.inputs, labels=labels)


def keep_few(samples: Samples, classes: int, seed: bytes) -> Samples:  # noqa: ARG001
    """Keep a tenth of the samples, at least four or what there is."""
    count = len(samples.labels)
    kept = max(min(MIN_POOR_SAMPLES, count), count // POOR_SHARE)
    chosen = np.sort(_generator("poor", seed).permutation(count)[:kept])
    return Samples(inputs=samples.inputs[chosen], labels=samples.labels[chosen])


DATA_ATTACKS: Final[Mapping[str, Corrupt]] = MappingProxyType(
    {"label-flip": flip_labels, "noisy": randomise_labels, "poor": keep_few}
)
"""By the names that scenario and experiment files use."""


def _generator(purpose: str, seed: bytes) -> np.random.Generator:
    derived = int.from_bytes(hash_domain(purpose, seed), "big")
    return np.random.Generator(np.random.PCG64(derived))
