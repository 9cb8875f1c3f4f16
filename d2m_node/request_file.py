"""`request.toml`: what a buyer wants trained, for how much, and under which terms.

`configs/requests/digits.toml` shows every table. Keys are named as in the code; amounts are whole
wei or text like "5ether", of a token its smallest units; the dataset's path starts at the
request's own folder.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from decimal import ROUND_FLOOR, Decimal
from pathlib import Path
from typing import Annotated, Final, Literal, TypeVar

import msgspec
from msgspec import Meta, Struct

from d2m_node.errors import UserError
from d2m_node.model_table import ModelTable, read_model
from d2m_node.user_input import (
    expand_home,
    explain_mismatch,
    explain_unknown_key,
    is_moderate,
    parse_wei,
    read_toml,
)
from protocol.auction import AuctionMode
from protocol.errors import InvalidParams
from protocol.metrics import MAX_CROSS_ENTROPY_BITS, MAX_SQUARED_ERROR, validate_metric
from protocol.model import ModelDescription
from protocol.osmd import DEFAULT_ETA_Q16
from protocol.profiles import STANDARD, Goal, Profile, select_profile
from protocol.request import PPM, ModelAccess, SamplingSpec, Tag, TrainingSpec, compute_rate_nanos
from protocol.step import MAX_LENGTH, MAX_LENGTHS, ONE_STEP, StepSpec
from protocol.terms import MAX_CONES, JobTerms, Metric, TermLimits, validate_terms
from protocol.types import RoundIndex, Wei

S = TypeVar("S", bound=Struct)

METRICS: Final = {
    "accuracy": Metric.ACC,
    "cross-entropy": Metric.NEG_CE,
    "macro-f1": Metric.MACRO_F1,
    "mean-squared-error": Metric.NEG_MSE,
}

MODES: Final = {
    "sealed": AuctionMode.SEALED,
    "second-price": AuctionMode.SECOND_PRICE,
    "open": AuctionMode.OPEN,
}

MODEL_ACCESS: Final = {
    "participants": ModelAccess.PARTICIPANTS,
    "buyer-only": ModelAccess.BUYER_ONLY,
    "public": ModelAccess.PUBLIC,
}

TARGET_RANGES: Final = {
    Metric.ACC: (0, 1),
    Metric.NEG_CE: (-MAX_CROSS_ENTROPY_BITS, 0),
    Metric.MACRO_F1: (0, 1),
    Metric.NEG_MSE: (-MAX_SQUARED_ERROR, 0),
}
"""What a utility of each metric can be (MECHANISM 12.1)."""

LEAST_RATE_NANOS: Final = 1000
"""Below it, Adam moves parameters by less than an update can say."""

ANY_DEPLOYMENT: Final = TermLimits(
    min_stake_wei=Wei(0), max_window_blocks=(1 << 32) - 1, seed_delay_blocks=1
)
"""A file is read without a chain; the deployment's own limits are checked with the bid."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestFile:
    """A request as a person wrote it, checked and in the units of the protocol."""

    tags: tuple[str, ...]
    """Ascending, distinct."""
    mode: AuctionMode
    is_in_token: bool
    """All amounts but the stake are in the deployment's token, not in ether."""
    bid_wei: Wei
    """In an open auction the most that is bid."""
    deposit_wei: Wei
    """Of the auction, should this bid open it: what each bidder puts up. Zero if it is open."""
    reserve_wei: Wei
    commit_blocks: int
    reveal_blocks: int
    """Zero if the auction is open."""
    model: ModelDescription
    training: TrainingSpec
    sampling: SamplingSpec
    step: StepSpec
    model_access: ModelAccess = ModelAccess.PARTICIPANTS
    validation_dataset: str
    """Absolute path of a dataset.toml."""
    validation_final_count: int
    validation_subset_count: int
    terms: JobTerms


class _Table(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A table of the file."""


class _AuctionTable(_Table, frozen=True, kw_only=True):
    mode: Literal["sealed", "second-price", "open"] = "sealed"
    currency: Literal["ether", "token"] = "ether"
    deposit_wei: int | str | None = None
    reserve_wei: int | str
    commit_blocks: Annotated[int, Meta(ge=1)]
    reveal_blocks: Annotated[int, Meta(ge=1)] | None = None


class _TrainingTable(_Table, frozen=True, kw_only=True):
    learning_rate: Decimal
    batch_size: int
    epochs: int
    rate_decay: Decimal = Decimal(1)


class _SamplingTable(_Table, frozen=True, kw_only=True):
    """Corrected OSMD; the defaults are MECHANISM 1's."""

    alpha: Decimal = Decimal("0.2")
    eta: Decimal | None = None
    keep: Decimal = Decimal("0.7")


class _StepTable(_Table, frozen=True, kw_only=True):
    """How a round's model moves; by default by the mean of the accepted updates."""

    lengths: tuple[Decimal, ...] = (Decimal(1),)
    momentum: Decimal = Decimal(0)


class _DeliveryTable(_Table, frozen=True, kw_only=True):
    model: Literal["participants", "buyer-only", "public"] = "participants"
    """Who may have the model in the end, besides the buyer and the CONE nodes."""


class _ValidationTable(_Table, frozen=True, kw_only=True):
    dataset: Annotated[str, Meta(min_length=1)]
    final_count: Annotated[int, Meta(ge=1, le=999_999)]
    subset_count: Annotated[int, Meta(ge=1, le=100_000)]


class _RequestTable(_Table, frozen=True, kw_only=True):
    tags: Annotated[list[Tag], Meta(min_length=1, max_length=16)]
    bid_wei: int | str
    auction: _AuctionTable
    model: ModelTable
    training: _TrainingTable
    validation: _ValidationTable
    terms: dict[str, object]
    """The fields of `protocol.terms.JobTerms`; ``metric`` is a word, ``target`` a number.

    Without lead, first set and growth these are chosen for ``cones_min`` to ``cones_max`` nodes.
    """
    sampling: _SamplingTable = _SamplingTable()
    step: _StepTable = _StepTable()
    delivery: _DeliveryTable = _DeliveryTable()


def read_request(path: Path) -> RequestFile:
    """Read a `request.toml`. Raises UserError: the file, the key, what it should be."""
    try:
        return parse_request(read_toml(path), path.absolute().parent)
    except UserError as exc:
        message = str(exc)
        raise UserError(message if message.startswith(str(path)) else f"{path}: {exc}") from exc


def parse_request(table: Mapping[str, object], folder: Path) -> RequestFile:
    """Check a request that is already a table. Raises UserError that names the key.

    ``folder`` is where a relative path of a dataset starts.
    """
    _check_keys(table, _RequestTable)
    try:
        written = msgspec.convert(table, _RequestTable)
    except msgspec.ValidationError as exc:
        raise UserError(explain_mismatch(exc)) from exc
    mode, is_in_token = MODES[written.auction.mode], written.auction.currency == "token"
    deposit, reveal_blocks = _read_sealing(mode, written.auction)
    terms = _read_terms(written.terms, is_in_token)
    request = RequestFile(
        tags=tuple(sorted(set(written.tags))),
        mode=mode,
        is_in_token=is_in_token,
        bid_wei=_read_amount("bid_wei", written.bid_wei, is_in_token),
        deposit_wei=_read_amount("auction.deposit_wei", deposit, is_in_token),
        reserve_wei=_read_amount("auction.reserve_wei", written.auction.reserve_wei, is_in_token),
        commit_blocks=written.auction.commit_blocks,
        reveal_blocks=reveal_blocks,
        model=read_model(written.model),
        training=_read_training(written.training, terms.rounds_max),
        sampling=_read_sampling(written.sampling, terms.metric),
        step=_read_step(written.step),
        model_access=MODEL_ACCESS[written.delivery.model],
        validation_dataset=str(folder / _read_path(written.validation.dataset)),
        validation_final_count=written.validation.final_count,
        validation_subset_count=written.validation.subset_count,
        terms=terms,
    )
    try:
        validate_metric(terms.metric, request.model)
    except InvalidParams as exc:
        raise UserError(f"terms.{exc}") from exc
    _check_bid(request)
    return request


def _read_sealing(mode: AuctionMode, table: _AuctionTable) -> tuple[int | str, int]:
    """Return what sealed bids put up, and the blocks in which they are revealed."""
    if mode is AuctionMode.OPEN:
        for key in ("deposit_wei", "reveal_blocks"):
            if getattr(table, key) is not None:
                raise UserError(f"auction.{key}: an open auction has none; remove it")
        return 0, 0
    if table.deposit_wei is None:
        raise UserError("auction.deposit_wei: missing; give what each bidder puts up")
    if table.reveal_blocks is None:
        raise UserError("auction.reveal_blocks: missing; give a number of blocks")
    return table.deposit_wei, table.reveal_blocks


def _check_bid(request: RequestFile) -> None:
    """Refuse a bid that its own auction would not take."""
    if request.mode is AuctionMode.OPEN:
        if not request.bid_wei >= max(request.reserve_wei, 1):
            raise UserError("bid_wei: must be at least auction.reserve_wei, and not zero")
    elif not request.reserve_wei <= request.bid_wei <= request.deposit_wei:
        raise UserError("bid_wei: must be between auction.reserve_wei and auction.deposit_wei")


def _read_path(text: str) -> Path:
    try:
        return expand_home(text)
    except UserError as exc:
        raise UserError(f"validation.dataset: {exc}") from exc


def _check_keys(table: Mapping[str, object], struct: type[Struct], prefix: str = "") -> None:
    known = {field.name: field.type for field in msgspec.structs.fields(struct)}
    for key, value in table.items():
        if key not in known:
            raise UserError(explain_unknown_key(prefix + key, [prefix + one for one in known]))
        nested = known[key]
        if isinstance(nested, type) and issubclass(nested, Struct) and isinstance(value, dict):
            _check_keys(value, nested, f"{prefix}{key}.")


def _read_terms(table: Mapping[str, object], is_in_token: bool) -> JobTerms:
    names = [field.name for field in fields(JobTerms)]
    for key in table:
        if key not in names:
            raise UserError(explain_unknown_key(f"terms.{key}", [f"terms.{one}" for one in names]))
    metric = METRICS.get(str(table.get("metric")))
    if metric is None:
        raise UserError(f"terms.metric: give one of {', '.join(METRICS)}")
    plain = {**_select_vote(table), **table, "metric": metric.value}
    if "target" in table:
        plain["target"] = _read_target(table["target"], metric)
    # Stake is ether in every job.
    for name, is_unit in (("stake_wei", False), ("seller_deposit_wei", is_in_token)):
        if name in table:
            plain[name] = _read_amount(f"terms.{name}", table[name], is_unit)
    try:
        terms = msgspec.convert(plain, JobTerms)
        validate_terms(terms, ANY_DEPLOYMENT)
    except msgspec.ValidationError as exc:
        raise UserError(explain_mismatch(exc, prefix="terms")) from exc
    except InvalidParams as exc:
        raise UserError(f"terms.{exc}") from exc
    return terms


def _select_vote(table: Mapping[str, object]) -> dict[str, int]:
    """Choose lead and set sizes if none is given: the cheapest ones safe in every pool allowed."""
    if any(field.name in table for field in fields(Profile)):
        return {}
    smallest, largest = table.get("cones_min"), table.get("cones_max")
    profile = STANDARD  # in terms that will be refused for the size of their pool
    if (
        isinstance(smallest, int)
        and isinstance(largest, int)
        and 1 <= smallest <= largest <= MAX_CONES
    ):
        profile = select_profile(Goal(range(smallest, largest + 1)))
    return asdict(profile)


def _read_target(value: object, metric: Metric) -> int:
    """Turn a utility into Q20, rounded down as utilities are: exactly 0.9 then reaches 0.9."""
    try:
        target = msgspec.convert(value, Decimal)
    except msgspec.ValidationError as exc:
        raise UserError("terms.target: give a number") from exc
    low, high = TARGET_RANGES[metric]
    if not target.is_finite() or not low <= target <= high:
        raise UserError(f"terms.target: is {target}; give a number between {low} and {high}")
    return int((target * (1 << 20)).to_integral_value(ROUND_FLOOR))


def _read_amount(key: str, amount: object, is_in_token: bool) -> Wei:
    """Read an amount of ether, or of a token: then in its smallest unit, whatever that is."""
    if is_in_token and isinstance(amount, str) and not amount.isdecimal():
        raise UserError(f"{key}: {amount!r} is no amount of a token; write whole smallest units")
    try:
        return parse_wei(amount)
    except UserError as exc:
        raise UserError(f"{key}: {exc}") from exc


def _read_training(table: _TrainingTable, rounds_max: int) -> TrainingSpec:
    numbers = {
        "training.learning_rate": _scale("training.learning_rate", table.learning_rate, 1_000_000),
        "training.batch_size": table.batch_size,
        "training.epochs": table.epochs,
        "training.rate_decay": _scale("training.rate_decay", table.rate_decay, PPM),
    }
    training = _fill(TrainingSpec, numbers)
    if compute_rate_nanos(training, RoundIndex(rounds_max - 1)) < LEAST_RATE_NANOS:
        raise UserError(
            f"training.rate_decay: is {table.rate_decay}; in round {rounds_max} the learning rate "
            "would be below 0.000001, and updates of nothing are refused; give a larger number"
        )
    return training


def _read_sampling(table: _SamplingTable, metric: Metric) -> SamplingSpec:
    eta = Decimal(DEFAULT_ETA_Q16[metric]) / (1 << 16) if table.eta is None else table.eta
    numbers = {
        "sampling.alpha": _scale("sampling.alpha", table.alpha, 10_000),
        "sampling.eta": _scale("sampling.eta", eta, 1 << 16),
        "sampling.keep": _scale("sampling.keep", table.keep, 10_000),
    }
    return _fill(SamplingSpec, numbers)


def _read_step(table: _StepTable) -> StepSpec:
    if not 1 <= len(table.lengths) <= MAX_LENGTHS:
        raise UserError(f"step.lengths: {len(table.lengths)} numbers; give 1 to {MAX_LENGTHS}")
    lengths = [_scale("step.lengths", length, ONE_STEP) for length in table.lengths]
    if not all(0 < length <= MAX_LENGTH * ONE_STEP for length in lengths):
        raise UserError(f"step.lengths: give numbers above 0, at most {MAX_LENGTH}")
    if len(set(lengths)) < len(lengths):
        raise UserError("step.lengths: a number stands there twice; remove one")
    momentum = _scale("step.momentum", table.momentum, ONE_STEP)
    if not 0 <= momentum < ONE_STEP:
        raise UserError(f"step.momentum: is {table.momentum}; give a number from 0 to below 1")
    return StepSpec(lengths_q16=tuple(lengths), momentum_q16=momentum)


def _scale(key: str, value: Decimal, factor: int) -> int:
    """Express a decimal in parts of 1/``factor``, to the nearest."""
    if not (value.is_finite() and is_moderate(value)):
        raise UserError(f"{key}: {value:.6} is no number to compute with")
    return int((value * factor).to_integral_value())


def _fill(spec: type[S], numbers: Mapping[str, int]) -> S:
    """Make a positional struct of numbers, given in its order under the file's keys."""
    try:
        return msgspec.convert(list(numbers.values()), spec)
    except msgspec.ValidationError as exc:
        message, _, place = str(exc).partition(" - at `$[")
        key = list(numbers)[int(place.removesuffix("]`"))]
        raise UserError(f"{key}: out of range: {message.lower()}") from exc
