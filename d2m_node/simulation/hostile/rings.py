"""Hostile sellers that train together: what each of a ring sends follows from what all learned.

The members of a ring that are sampled in a round find each other by the model they train from. The
first to be done fixes what the ring knows, so that all of them tell one story.
"""

from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import trio

from d2m_node.ports import Int32Array, TrainingTask
from d2m_node.simulation.computing.training_pool import Pool, PooledTrainer
from d2m_node.simulation.hostile.kinds import Hostile
from d2m_node.simulation.hostile.update_attacks import UPDATE_ATTACKS, RingView, UpdateAttack
from protocol.hashing import hash_domain, word

ROUNDS_KEPT: Final = 4


@dataclass(slots=True)
class _Meeting:
    """A ring's members in one round."""

    start: Int32Array
    """The model they train from."""
    learning: "dict[int, Future[Int32Array]]" = field(default_factory=dict)
    learned: dict[int, Int32Array] | None = None


class Ring:
    """All hostile sellers of one kind."""

    def __init__(self, attack: UpdateAttack, seed: bytes) -> None:
        self.attack = attack
        self._seed = seed
        self._meetings: dict[bytes, _Meeting] = {}

    def join(self, member: int, task: TrainingTask, learning: "Future[Int32Array]") -> bytes:
        """Take part in the round that a task is of; return the round's name."""
        name = hash_domain("ring", self._seed, task.parameters.tobytes())
        if name not in self._meetings:
            self._meetings[name] = _Meeting(task.parameters)
            for old in list(self._meetings)[:-ROUNDS_KEPT]:
                del self._meetings[old]
        self._meetings[name].learning[member] = learning
        return name

    def forge(self, name: bytes, member: int, own: Int32Array) -> Int32Array:
        """Return what a member sends in a round."""
        meeting = self._meetings.get(name)
        learned: dict[int, Int32Array] = {}
        if meeting is not None:
            if meeting.learned is None:
                meeting.learned = {one: it.result() for one, it in meeting.learning.items()}
            learned = meeting.learned
        view = RingView(
            seller=member,
            learned={**learned, member: own},
            previous_step=self._find_step(name),
            seed=name,
        )
        return self.attack.forge(view)

    def _find_step(self, name: bytes) -> Int32Array | None:
        """Return how the model moved since the round before that a member saw."""
        names = list(self._meetings)
        position = names.index(name) if name in names else 0
        if position == 0:
            return None
        before, after = (self._meetings[one].start for one in names[position - 1 : position + 1])
        step: Int32Array = after - before
        return step


class RingTrainer(PooledTrainer):
    """The trainer of one member: trains like an honest seller, if its attack needs that."""

    def __init__(self, honest: PooledTrainer, ring: Ring, member: int) -> None:
        super().__init__(honest.pool, honest.seconds)
        self._ring = ring
        self._member = member

    async def train(self, task: TrainingTask) -> Int32Array:
        """Learn with the ring, and return what it sends instead."""
        learning = learn(self.pool, task, self._ring)
        name = self._ring.join(self._member, task, learning)
        await trio.sleep(self.seconds)
        return self._ring.forge(name, self._member, learning.result())


def make_rings(hostile: Sequence[Hostile], seed: int) -> dict[str, Ring]:
    """Make the rings of those kinds that attack updates, by kind."""
    return {
        one.kind: Ring(
            UPDATE_ATTACKS[one.kind](**one.options),
            hash_domain("ring-seed", word(seed), one.kind.encode()),
        )
        for one in hostile
        if one.kind in UPDATE_ATTACKS
    }


def learn(pool: Pool, task: TrainingTask, ring: Ring | None) -> "Future[Int32Array]":
    """Begin a training; for a ring whose attack needs none, give zeros at once."""
    if ring is None or ring.attack.needs_training:
        return pool.submit(task)
    nothing: Future[Int32Array] = Future()
    nothing.set_result(np.zeros(task.parameters.shape, dtype=np.int32))
    return nothing
