"""Rules by name, as experiments and their files write them.

An aggregator's name may have parts in front of it, joined by ``+`` and applied from left to right:
stages that leave some sellers (``gate``, ``filter``), then mixing rules (``nnm``, ``bucketing``),
then the rule: ``gate+filter+nnm+krum``. Parameters of the same name are shared by all parts.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Final, TypeVar

import msgspec

from protocol.baselines.exact import CorrectedKrum, Gate, RoundKrum, Stage, Staged, UtilityFilter
from protocol.baselines.floats import FloatAggregator, FloatRule, Mixer
from protocol.baselines.interface import Aggregator, Mechanism, Sampler, SamplerRules
from protocol.baselines.mixing import Bucketing, NearestNeighbourMixing
from protocol.baselines.rules import (
    CentredClipping,
    CoordinateMedian,
    FedAvg,
    Krum,
    MultiKrum,
    TrimmedMean,
    WeightedFedAvg,
)
from protocol.baselines.samplers import OsmdSampling, UniformSampling, ZlfkSampling
from protocol.errors import InvalidParams

Parameters = Mapping[str, object]
Entry = TypeVar("Entry")

STAGES: Final[dict[str, type[Stage]]] = {"gate": Gate, "filter": UtilityFilter}
MIXERS: Final[dict[str, type[Mixer]]] = {
    "nnm": NearestNeighbourMixing,
    "bucketing": Bucketing,
}
FLOAT_RULES: Final[dict[str, type[FloatRule]]] = {
    "fedavg": FedAvg,
    "weighted-fedavg": WeightedFedAvg,
    "krum": Krum,
    "multi-krum": MultiKrum,
    "median": CoordinateMedian,
    "trimmed-mean": TrimmedMean,
    "centred-clipping": CentredClipping,
}
EXACT_RULES: Final[dict[str, type[Aggregator]]] = {
    "corrected-krum": CorrectedKrum,
    "round-krum": RoundKrum,
}
COMPOSED: Final[dict[str, str]] = {"corrected-osmd": "gate+filter+round-krum"}
AGGREGATORS: Final = (*FLOAT_RULES, *EXACT_RULES, *COMPOSED)
SAMPLERS: Final[dict[str, type[SamplerRules]]] = {
    "uniform": UniformSampling,
    "osmd": OsmdSampling,
    "zlfk": ZlfkSampling,
}
MECHANISMS: Final[dict[str, tuple[str, str]]] = {
    "corrected-osmd": ("osmd", "corrected-osmd"),
    "no-corrected-osmd": ("uniform", "fedavg"),
    "zlfk": ("zlfk", "fedavg"),
}


def create_aggregator(name: str, parameters: Parameters) -> Aggregator:
    """Make an aggregation rule of its name and parameters.

    Parameters
    ----------
    name :
        One of AGGREGATORS, with stages and mixing rules in front of it if wanted.
    parameters :
        By the names of the dataclasses' fields. Each part takes those that it knows.

    Raises
    ------
    InvalidParams
        If a name is unknown or stands where it cannot, or a parameter is missing, unknown to all
        parts, or of the wrong kind.
    """
    parts = _split(name)
    _refuse_unknown(parameters, _list_classes(parts))
    return _compose(parts, parameters)


def create_sampler(name: str, seller_count: int, parameters: Parameters) -> Sampler:
    """Make the first round's sampler of its name, one of SAMPLERS, and its parameters.

    Raises
    ------
    InvalidParams
        As :func:`create_aggregator`, or if so many sellers cannot be sampled.
    """
    rules = _look_up("sampler", name, SAMPLERS)
    _refuse_unknown(parameters, [rules])
    return _make(rules, parameters).start(seller_count)


def create_mechanism(name: str, seller_count: int, parameters: Parameters) -> Mechanism:
    """Make a sampler and an aggregator that belong together, one of MECHANISMS.

    Raises
    ------
    InvalidParams
        As :func:`create_aggregator` and :func:`create_sampler`.
    """
    sampler_name, aggregator_name = _look_up("mechanism", name, MECHANISMS)
    rules, parts = SAMPLERS[sampler_name], _split(aggregator_name)
    _refuse_unknown(parameters, [rules, *_list_classes(parts)])
    return Mechanism(_make(rules, parameters).start(seller_count), _compose(parts, parameters))


@dataclass(frozen=True, slots=True)
class _Parts:
    """The names in an aggregator's name."""

    stages: tuple[str, ...]
    mixers: tuple[str, ...]
    rule: str


def _split(name: str) -> _Parts:
    *front, last = name.split("+")
    *composed, rule = COMPOSED.get(last, last).split("+")
    front += composed
    _look_up("aggregator", rule, {**FLOAT_RULES, **EXACT_RULES})
    for part in front:
        _look_up("aggregator", part, {**STAGES, **MIXERS})
    mixers = tuple(part for part in front if part in MIXERS)
    stages = tuple(part for part in front if part in STAGES)
    if (*stages, *mixers) != tuple(front):
        raise InvalidParams("aggregator", f"{name}: {mixers[0]} must come after all stages")
    if mixers and rule in EXACT_RULES:
        raise InvalidParams("aggregator", f"{name}: {rule} is exact and takes no mixed floats")
    return _Parts(stages, mixers, rule)


def _list_classes(parts: _Parts) -> list[type]:
    known: dict[str, type] = {**STAGES, **MIXERS, **FLOAT_RULES, **EXACT_RULES}
    return [known[part] for part in (*parts.stages, *parts.mixers, parts.rule)]


def _compose(parts: _Parts, parameters: Parameters) -> Aggregator:
    mixers = tuple(_make(MIXERS[part], parameters) for part in parts.mixers)
    rule: Aggregator
    if parts.rule in FLOAT_RULES:
        rule = FloatAggregator(_make(FLOAT_RULES[parts.rule], parameters), mixers)
    else:
        rule = _make(EXACT_RULES[parts.rule], parameters)
    stages = tuple(_make(STAGES[part], parameters) for part in parts.stages)
    return Staged(stages, rule) if stages else rule


def _look_up(kind: str, name: str, known: Mapping[str, Entry]) -> Entry:
    if name not in known:
        raise InvalidParams(kind, f"no {name!r}; known are {', '.join(known)}")
    return known[name]


def _list_fields(rule: type) -> list[str]:
    return [field.name for field in fields(rule)]


def _refuse_unknown(parameters: Parameters, rules: Sequence[type]) -> None:
    known = {name for rule in rules for name in _list_fields(rule)}
    for name in parameters:
        if name not in known:
            raise InvalidParams(name, f"no such parameter; known are {', '.join(sorted(known))}")


def _make(rule: type[Entry], parameters: Parameters) -> Entry:
    known = _list_fields(rule)
    own = {name: value for name, value in parameters.items() if name in known}
    try:
        return msgspec.convert(own, rule)
    except msgspec.ValidationError as exc:
        raise InvalidParams(rule.__name__, str(exc)) from exc
