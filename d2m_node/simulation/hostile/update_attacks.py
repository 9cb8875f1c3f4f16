"""What hostile sellers send instead of an honest update: pure rules, shared by all experiments.

An attack is a frozen dataclass of its parameters. Hostile sellers may work together: each is given
what its whole ring has learned honestly in the round, and nothing of what others offer. So an
attack that needs the mean and the spread of honest updates estimates them from its ring, as its
authors do.

Attacks on the data, before training, are in `data_attacks`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Protocol

import numpy as np
import numpy.typing as npt

from protocol.hashing import hash_domain, word
from protocol.update import FRACTION_BITS, MAX_UPDATE

Int32Array = npt.NDArray[np.int32]
Float64Array = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class RingView:
    """What a hostile seller knows when it makes up its update."""

    seller: int
    """Its index."""
    learned: Mapping[int, Int32Array]
    """Honest updates of the ring's sampled members by index, its own among them; each (d,), Q20.

    Of an attack that needs no training only the shapes are used, and they may be zero.
    """
    previous_step: Int32Array | None
    """What the round before added to the model, shape (d,); None in the first round."""
    seed: bytes
    """32 bytes, the same for the whole ring, another in each round."""

    @property
    def own(self) -> Int32Array:
        """The update that an honest seller would send."""
        return self.learned[self.seller]

    @property
    def rows(self) -> Float64Array:
        """All that the ring has learned, shape (members, d), in ascending order of the members."""
        return np.stack([self.learned[index] for index in sorted(self.learned)]).astype(np.float64)

    def draw_normal(self, scale: float, *, shared: bool = False) -> Float64Array:
        """Draw noise of one standard deviation in units of parameters; shape (d,), Q20."""
        member = 0 if shared else 1 + self.seller
        seed = int.from_bytes(hash_domain("noise", self.seed, word(member)), "big")
        drawn = np.random.Generator(np.random.PCG64(seed)).standard_normal(len(self.own))
        noise: Float64Array = drawn * scale * (1 << FRACTION_BITS)
        return noise


class UpdateAttack(Protocol):
    """A rule that makes up an update."""

    @property
    def needs_training(self) -> bool:
        """Whether the ring has to train honestly first."""
        ...

    def forge(self, view: RingView) -> Int32Array:
        """Return what is sent, shape (d,), within the update's bound."""
        ...


def fit_update(values: Float64Array) -> Int32Array:
    """Round to whole units of 2**-20 within the update's bound: anything else is no message."""
    fitted: Float64Array = np.clip(np.rint(values), -MAX_UPDATE, MAX_UPDATE)
    return fitted.astype(np.int32)


@dataclass(frozen=True, slots=True)
class Noise:
    """Random numbers that have nothing to do with the data."""

    scale: float = 0.02
    """Standard deviation, in units of parameters; an honest update's is near 0.01 to 0.03."""
    needs_training = False

    def forge(self, view: RingView) -> Int32Array:
        """Draw noise."""
        return fit_update(view.draw_normal(self.scale))


@dataclass(frozen=True, slots=True)
class SignFlip:
    """The opposite of what was learned, made larger. Source: MECHANISM 13.1 with factor 2."""

    factor: float = 2.0
    needs_training = True

    def forge(self, view: RingView) -> Int32Array:
        """Reverse the own update."""
        return fit_update(-self.factor * view.own.astype(np.float64))


@dataclass(frozen=True, slots=True)
class Scaled:
    """The right direction, many times too far: one seller rules a plain mean."""

    factor: float = 10.0
    needs_training = True

    def forge(self, view: RingView) -> Int32Array:
        """Enlarge the own update."""
        return fit_update(self.factor * view.own.astype(np.float64))


@dataclass(frozen=True, slots=True)
class Alie:
    """A little is enough: every coordinate is moved within what is usual.

    Source: Baruch, Baruch, Goldberg 2019 (arXiv:1902.06156): mean - z * standard deviation, both
    of the ring's own honest updates.
    """

    z: float = 1.0
    needs_training = True

    def forge(self, view: RingView) -> Int32Array:
        """Move the ring's mean by z standard deviations."""
        rows = view.rows
        return fit_update(rows.mean(axis=0) - self.z * rows.std(axis=0))


@dataclass(frozen=True, slots=True)
class InnerProduct:
    """Inner-product manipulation: a small step against the mean.

    Source: Xie, Koyejo, Gupta 2019 (arXiv:1903.03936): -epsilon * mean, of the ring's own updates.
    """

    epsilon: float = 0.5
    needs_training = True

    def forge(self, view: RingView) -> Int32Array:
        """Reverse the ring's mean."""
        return fit_update(-self.epsilon * view.rows.mean(axis=0))


@dataclass(frozen=True, slots=True)
class Identical:
    """The whole ring sends one reversed update: as many voices, all at distance zero."""

    factor: float = 1.0
    needs_training = True

    def forge(self, view: RingView) -> Int32Array:
        """Reverse the update of the ring's first member."""
        first = view.learned[min(view.learned)]
        return fit_update(-self.factor * first.astype(np.float64))


@dataclass(frozen=True, slots=True)
class Idle:
    """A free rider without data: small noise, that harms little and looks useful late in a job.

    Source: MECHANISM 0.1, finding 3.
    """

    scale: float = 0.001
    """Standard deviation, in units of parameters."""
    needs_training = False

    def forge(self, view: RingView) -> Int32Array:
        """Draw small noise."""
        return fit_update(view.draw_normal(self.scale))


@dataclass(frozen=True, slots=True)
class Replay:
    """A free rider that sends the last step of the model again, under some noise.

    Source: MECHANISM 11.1, "not covered".
    """

    noise: float = 0.002
    """Standard deviation of the noise, in units of parameters."""
    needs_training = False

    def forge(self, view: RingView) -> Int32Array:
        """Send the last step; in the first round there is none, and noise alone is sent."""
        noise = view.draw_normal(self.noise)
        if view.previous_step is None:
            return fit_update(noise)
        return fit_update(view.previous_step.astype(np.float64) + noise)


UPDATE_ATTACKS: Final[Mapping[str, Callable[..., UpdateAttack]]] = MappingProxyType(
    {
        "noise": Noise,
        "sign-flip": SignFlip,
        "scaled": Scaled,
        "alie": Alie,
        "inner-product": InnerProduct,
        "identical": Identical,
        "idle": Idle,
        "replay": Replay,
    }
)
"""By the names that scenario and experiment files use."""
