"""What stands on the simulated chain when it begins: the contracts, and a token if it has one.

The contracts are created as `chain.deployment` creates them elsewhere.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from importlib import resources

from eth_abi.abi import encode

from d2m_node.chain.artifacts import (
    CONTRACTS,
    TOKEN,
    Artifact,
    load_artifact,
    parse_artifact,
)
from d2m_node.chain.bindings import Bindings, EncodedCall
from d2m_node.chain.deployment import encode_creation, encode_creations, predict_address
from protocol.params import ProtocolParams
from protocol.types import Address, Wei


@dataclass(frozen=True, slots=True, kw_only=True)
class MarketPlan:
    """One market before it is created."""

    params: ProtocolParams
    bindings: Bindings
    calls: tuple[EncodedCall, ...]
    """Of the deployer, in the order of its nonces."""


def plan_market(
    deployer: Address, params: ProtocolParams, tokens: Mapping[Address, int]
) -> MarketPlan:
    """Plan the creation of the contracts, by an account that has sent nothing yet.

    With ``tokens``, amounts by account, also that of an ERC-20, which the parameters then name.
    """
    creations: tuple[EncodedCall, ...] = ()
    mints: tuple[EncodedCall, ...] = ()
    artifacts = {name: load_artifact(name) for name in CONTRACTS}
    if tokens:
        token = predict_address(deployer, 0)
        params = replace(params, token=token)
        creations = (encode_creation("Token", load_token().bytecode),)
        mints = tuple(_encode_mint(token, *share) for share in tokens.items())
    addresses = {
        name: predict_address(deployer, nonce)
        for nonce, name in enumerate(CONTRACTS, start=len(creations))
    }
    creations += tuple(encode_creations(addresses, params))
    if tokens:
        artifacts, addresses = {**artifacts, "Token": TOKEN}, {**addresses, "Token": params.token}
    bindings = Bindings(artifacts, addresses)
    return MarketPlan(params=params, bindings=bindings, calls=creations + mints)


@cache
def load_token() -> Artifact:
    """Read the compiled token from the package."""
    source = resources.files(__package__) / "artifacts" / "TokenPlain.json"
    return parse_artifact("TokenPlain", json.loads(source.read_text(encoding="utf-8")))


def _encode_mint(token: Address, account: Address, amount: int) -> EncodedCall:
    selector = load_token().functions["mint"].selector
    data = selector + encode(["address", "uint256"], [account, amount])
    return EncodedCall(label="Token.mint", to=token, data=data, value_wei=Wei(0))
