"""The data directories of a devnet's nodes: keys, settings, data files."""

import secrets
from dataclasses import dataclass
from pathlib import Path

from d2m_node.devnet.options import DevnetOptions
from d2m_node.keys import create_account
from protocol.hashing import Domain
from protocol.types import Address

STAKE_WEI = 5 * 10**18
HELD_OUT_COUNT = 497
ALPHA_MILLI = 500
"""Dirichlet parameter of the sellers' partition in thousandths: 0.5."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NodePlan:
    """One node process to be."""

    name: str
    role: str
    folder: Path
    account: Address
    hostile: str | None
    """Name of its attack, if it is a hostile node."""


def plan_nodes(options: DevnetOptions) -> list[NodePlan]:
    """Make a data directory with keys for every node; hostile ones come last in their role."""
    counts = {"buyer": options.buyers, "seller": options.sellers, "cone": options.cones}
    hostile = {
        "buyer": (0, ""),
        "seller": (options.malicious_sellers, "sign-flip"),
        "cone": (options.byzantine_cones, options.attack),
    }
    plans = []
    for role, count in counts.items():
        hostile_count, attack = hostile[role]
        for number in range(count):
            is_hostile = number >= count - hostile_count
            folder = options.folder / f"{role}-{number + 1}"
            plans.append(
                NodePlan(
                    name=folder.name,
                    role=role,
                    folder=folder,
                    account=_create_keys(folder),
                    hostile=attack if is_hostile else None,
                )
            )
    return plans


def _create_keys(folder: Path) -> Address:
    folder.mkdir(mode=0o700, parents=True)
    password = secrets.token_urlsafe(24)
    password_file = folder / "password"
    password_file.touch(mode=0o600)
    password_file.write_text(password + "\n")
    return create_account(folder / "account.json", password, light=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class ChainPlace:
    """Where the devnet's contracts are, and where a node listens."""

    url: str
    domain: Domain
    deployment_block: int
    listen: str = "/ip4/127.0.0.1/tcp/0"
    announce: str | None = None
    """What a node names in the registry, if it is not where it listens."""
    further_settings: tuple[str, ...] = ()
    """Lines for the end of its config.toml."""


def write_settings(plan: NodePlan, chain: ChainPlace, options: DevnetOptions) -> None:
    """Write a node's config.toml, and its dataset file if it needs one."""
    lines = [
        'device = "cpu"',  # a dozen nodes share the machine, and their models are small
        "shutdown_grace_seconds = 5",
        "[chain]",
        f'rpc_urls = ["{chain.url}"]',
        f"chain_id = {chain.domain.chain_id}",
        f'market = "0x{chain.domain.market.hex()}"',
        "confirmations = 0",
        f"poll_seconds = {min(0.4, options.block_seconds / 2)}",
        f"deployment_block = {chain.deployment_block}",
        "[keys]",
        'password_file = "password"',
        "[network]",
        f'listen = "{chain.listen}"',
        *([] if chain.announce is None else [f'announce = "{chain.announce}"']),
        "[logs]",
        'format = "json"',
        f"[roles.{plan.role}]",
        "enabled = true",
    ]
    if plan.role == "seller":
        lines.append('dataset = "dataset.toml"')
        index = int(plan.name.rsplit("-", 1)[1]) - 1
        _write_dataset(plan.folder, 'part = "train"', options, partition=index)
    if plan.role == "buyer":
        _write_dataset(plan.folder, 'part = "held-out"', options, partition=None)
    if plan.role == "cone":
        lines.append(f"stake_wei = {STAKE_WEI}")
    lines += chain.further_settings
    (plan.folder / "config.toml").write_text("\n".join(lines) + "\n")


def _write_dataset(
    folder: Path, part: str, options: DevnetOptions, *, partition: int | None
) -> None:
    """Sellers share the training samples by Dirichlet; buyers validate on the held-out ones."""
    lines = [
        'format = "digits"',
        'tags = ["digits", "images"]',
        "[split]",
        part,
        f"held_out_count = {HELD_OUT_COUNT}",
        f"seed = {options.seed}",
    ]
    if partition is not None:
        lines += [
            "[partition]",
            f"alpha_milli = {ALPHA_MILLI}",
            f"parts = {options.sellers}",
            f"index = {partition}",
            f"seed = {options.seed}",
        ]
    (folder / "dataset.toml").write_text("\n".join(lines) + "\n")
