"""The creation of the contracts on the simulated chain, as `chain.deployment` does it elsewhere."""

from collections.abc import Iterator, Mapping
from dataclasses import astuple

from d2m_node.chain.artifacts import CONTRACTS, OTHERS, load_artifact
from d2m_node.chain.bindings import EncodedCall, encode_constructor
from d2m_node.chain.deployment import predict_address
from protocol.params import ProtocolParams
from protocol.types import Address, Wei


def predict_addresses(deployer: Address, first_nonce: int) -> dict[str, Address]:
    """Compute where each contract will be, by name."""
    return {
        name: predict_address(deployer, nonce)
        for nonce, name in enumerate(CONTRACTS, start=first_nonce)
    }


def encode_creations(
    addresses: Mapping[str, Address], params: ProtocolParams
) -> Iterator[EncodedCall]:
    """Encode the creation of each contract, in the order of their nonces."""
    arguments = {
        **{_to_snake_case(name): address for name, address in addresses.items()},
        "params": astuple(params),
        "contracts": tuple(addresses[name] for name in OTHERS),
    }
    for name in CONTRACTS:
        data = encode_constructor(load_artifact(name), arguments)
        yield EncodedCall(label=f"deploy {name}", to=None, data=data, value_wei=Wei(0))


def _to_snake_case(name: str) -> str:
    return "".join("_" + c.lower() if c.isupper() else c for c in name).removeprefix("_")
