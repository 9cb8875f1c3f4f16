"""The compiled contracts as this package carries them: ABI and bytecode, one file each.

`scripts/build_contracts` writes ``artifacts/<Contract>.json`` with the keys ``abi`` and
``bytecode``.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

from protocol.hashing import keccak

CONTRACTS = (
    "PeerRegistry",
    "DataRegistry",
    "StakePool",
    "SellerDeposits",
    "Market",
    "Enrolment",
    "Statements",
    "Ballots",
    "Rounds",
    "Appeals",
    "Settlement",
)
"""In the order of deployment."""

OTHERS = tuple(name for name in CONTRACTS if name != "Market")
"""What `Market.contracts()` names, in the order of its fields."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameter:
    """One argument or event field. ``abi_type`` has structs spelled out as tuples."""

    name: str
    abi_type: str
    indexed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Function:
    """A function of a contract."""

    name: str
    selector: bytes
    """First four bytes of the calldata."""
    inputs: tuple[Parameter, ...]
    outputs: tuple[Parameter, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class EventSignature:
    """An event of a contract."""

    name: str
    topic: bytes
    """Keccak-256 of the signature: a log's first topic."""
    fields: tuple[Parameter, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Artifact:
    """One compiled contract."""

    name: str
    constructor: tuple[Parameter, ...]
    functions: Mapping[str, Function]
    events: Mapping[str, EventSignature]
    bytecode: bytes


@cache
def load_artifact(contract: str) -> Artifact:
    """Read a compiled contract from the package."""
    source = resources.files(__package__) / "artifacts" / f"{contract}.json"
    return parse_artifact(contract, json.loads(source.read_text(encoding="utf-8")))


def parse_artifact(contract: str, content: Mapping[str, Any]) -> Artifact:
    """Build an artifact from the compiler's JSON."""
    functions: dict[str, Function] = {}
    events: dict[str, EventSignature] = {}
    constructor: tuple[Parameter, ...] = ()
    for entry in content["abi"]:
        if entry["type"] == "function":
            functions[entry["name"]] = _parse_function(entry)
        elif entry["type"] == "event":
            events[entry["name"]] = _parse_event(entry)
        elif entry["type"] == "constructor":
            constructor = _parse_parameters(entry["inputs"])
    return Artifact(
        name=contract,
        constructor=constructor,
        functions=functions,
        events=events,
        bytecode=bytes.fromhex(content["bytecode"].removeprefix("0x")),
    )


def _parse_function(entry: Mapping[str, Any]) -> Function:
    inputs = _parse_parameters(entry["inputs"])
    return Function(
        name=entry["name"],
        selector=_hash_signature(entry["name"], inputs)[:4],
        inputs=inputs,
        outputs=_parse_parameters(entry["outputs"]),
    )


def _parse_event(entry: Mapping[str, Any]) -> EventSignature:
    fields = _parse_parameters(entry["inputs"])
    topic = _hash_signature(entry["name"], fields)
    return EventSignature(name=entry["name"], topic=topic, fields=fields)


def _parse_parameters(entries: list[Mapping[str, Any]]) -> tuple[Parameter, ...]:
    return tuple(
        Parameter(
            name=entry["name"],
            abi_type=_spell_type(entry),
            indexed=entry.get("indexed", False),
        )
        for entry in entries
    )


def _spell_type(entry: Mapping[str, Any]) -> str:
    """Replace ``tuple`` by its components: ``tuple[]`` of (a, b) becomes ``(a,b)[]``."""
    abi_type: str = entry["type"]
    if not abi_type.startswith("tuple"):
        return abi_type
    members = ",".join(_spell_type(component) for component in entry["components"])
    return f"({members}){abi_type.removeprefix('tuple')}"


def _hash_signature(name: str, parameters: tuple[Parameter, ...]) -> bytes:
    types = ",".join(parameter.abi_type for parameter in parameters)
    return keccak(f"{name}({types})".encode("ascii"))


TOKEN = parse_artifact(
    "Token",
    {
        "abi": [
            {
                "type": "function",
                "name": "approve",
                "inputs": [
                    {"name": "spender", "type": "address"},
                    {"name": "amount_wei", "type": "uint256"},
                ],
                "outputs": [{"name": "", "type": "bool"}],
            }
        ],
        "bytecode": "0x",
    },
)
"""What a node calls of an ERC-20. Its events are not followed: money shows in the contracts'."""
