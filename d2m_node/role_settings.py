"""The settings of a node's roles: what is on from the start, and what each takes on."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, get_args

from msgspec import Meta

from d2m_node.errors import UserError
from protocol.types import Wei

Count = Annotated[int, Meta(ge=0)]
Epsilon = Annotated[float, Meta(ge=0.01, le=1000)]
Limit = Annotated[int, Meta(ge=1)]
MetricName = Literal["accuracy", "cross-entropy", "macro-f1", "mean-squared-error"]


@dataclass(frozen=True, slots=True, kw_only=True)
class BuyerSettings:
    enabled: bool = False
    known_bids: tuple[int, ...] = ()
    """Auctions of whose bids by this account the operator knows, although this data directory does
    not: an old copy of it would pay twice for a request that is submitted again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PrivacySettings:
    """Differential privacy of a seller's trainings (DP-SGD); off without a budget."""

    epsilon_budget: Epsilon | None = None
    """What all jobs together may tell of one dataset. Jobs that might exceed it are refused."""
    delta: Annotated[float, Meta(gt=0, lt=0.1)] = 1e-5
    """Must be below one over the number of samples."""
    max_grad_norm: Annotated[float, Meta(gt=0, le=1e6)] = 1.0
    """What the gradient of each sample is clipped to."""
    noise_multiplier: Annotated[float, Meta(ge=0.1, le=1e4)] | None = None
    """Noise in units of `max_grad_norm`. Give either this or `epsilon_per_job`."""
    epsilon_per_job: Epsilon | None = None
    """Chooses the noise: a job of all its rounds costs about so much, taken alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SellerSettings:
    enabled: bool = False
    dataset: Path | None = None
    """A dataset.toml."""
    min_price_wei: Wei = Wei(0)
    """The data set is for no job in ether that pays less; "5ether" and the like are read."""
    min_price_token: Wei = Wei(0)
    """The same for jobs in the deployment's token, in its smallest unit."""
    tags: tuple[str, ...] = ()
    """Of the data set's tags, those it is sold under; none: all of them."""
    metrics: tuple[MetricName, ...] = get_args(MetricName)
    """Metrics of the jobs that it is sold to."""
    jobs_max: Limit | None = None
    """Jobs at once; an empty text is "no limit", here and below."""
    window_blocks_min: Count = 0
    """No job with a shorter window, whatever can be done in it."""
    privacy: PrivacySettings = PrivacySettings()


@dataclass(frozen=True, slots=True, kw_only=True)
class ConeSettings:
    enabled: bool = False
    stake_wei: Wei = Wei(0)
    """What the node keeps staked; "5ether" and the like are read. Whenever the role starts it
    deposits what is missing, after a slash too."""
    job_stake_min_wei: Wei = Wei(0)
    """No job that asks for less: its voters have too little to lose."""
    job_stake_max_wei: Wei | None = None
    """No job that asks for more."""
    min_price_wei: Wei = Wei(0)
    """No job in ether that pays less."""
    min_price_token: Wei = Wei(0)
    """The same for jobs in the deployment's token, in its smallest unit."""
    model_parameters_max: Limit | None = None
    """No job with a larger model."""
    validation_samples_max: Limit | None = None
    """No job with a larger validation set."""
    jobs_max: Limit | None = None
    """Jobs at once."""
    window_blocks_min: Count = 0
    """No job with a shorter window, whatever can be done in it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RoleSettings:
    """Roles that are on from the start. Without any, the node observes."""

    buyer: BuyerSettings
    seller: SellerSettings
    cone: ConeSettings

    def enabled(self) -> dict[str, bool]:
        """Tell of each role whether it is on from the start."""
        return {
            "buyer": self.buyer.enabled,
            "seller": self.seller.enabled,
            "cone": self.cone.enabled,
        }


def check_roles(roles: RoleSettings) -> None:
    """Check what one value alone cannot tell. Raises UserError."""
    if roles.seller.enabled and roles.seller.dataset is None:
        raise UserError("roles.seller.dataset: a seller needs one; name a dataset.toml")
    if not roles.seller.metrics:
        raise UserError("roles.seller.metrics: name at least one; leave it out for all of them")
    _check_privacy(roles.seller.privacy)
    cone = roles.cone
    if cone.job_stake_max_wei is not None and cone.job_stake_max_wei < cone.job_stake_min_wei:
        raise UserError("roles.cone.job_stake_max_wei: less than roles.cone.job_stake_min_wei")
    if cone.enabled and cone.stake_wei == 0:
        raise UserError('roles.cone.stake_wei: a CONE node needs a stake, like "5ether"')


def _check_privacy(privacy: PrivacySettings) -> None:
    section = "roles.seller.privacy"
    given = [
        name
        for name in ("noise_multiplier", "epsilon_per_job")
        if getattr(privacy, name) is not None
    ]
    if privacy.epsilon_budget is None:
        if given:
            raise UserError(f"{section}.epsilon_budget: not set, and {given[0]} is; give a budget")
        return
    if len(given) != 1:
        raise UserError(
            f"{section}.epsilon_budget: with it, give either noise_multiplier or epsilon_per_job"
        )
    if privacy.epsilon_per_job is not None and privacy.epsilon_per_job > privacy.epsilon_budget:
        raise UserError(f"{section}.epsilon_per_job: must not exceed epsilon_budget")
