"""Any aggregation rule with the step that a request asks for: its length, and momentum."""

from dataclasses import dataclass, replace

from protocol.baselines.interface import Aggregate, Aggregator, Offers
from protocol.step import StepSpec, iter_steps


@dataclass(frozen=True, slots=True)
class Stepped:
    """An aggregator whose aggregate becomes a step as in a round of the market."""

    inner: Aggregator
    spec: StepSpec

    def aggregate(self, offers: Offers) -> Aggregate:
        """Aggregate, and take the best step; none if nobody's update is part of it.

        Steps are measured only where there is one to choose.
        """
        found = self.inner.aggregate(offers)
        if not found.contributors:
            return found
        steps = list(iter_steps(self.spec, found.step, offers.previous_step))
        if len(steps) == 1:
            return replace(found, step=steps[0])
        gains = list(offers.measure(steps))
        return replace(found, step=steps[gains.index(max(gains))])
