"""Putting the contracts on a chain. They know each other, so their addresses are predicted."""

import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import astuple, dataclass, fields
from pathlib import Path

import rlp
import trio
from eth_utils.address import is_hex_address, to_canonical_address

from d2m_node.chain.artifacts import CONTRACTS, OTHERS, load_artifact
from d2m_node.chain.bindings import EncodedCall, encode_constructor
from d2m_node.chain.client import RpcClient, open_client
from d2m_node.chain.fees import quote_call
from d2m_node.chain.json_rpc import Request, parse_quantity, to_hex
from d2m_node.chain.signing import sign_transaction
from d2m_node.chain.slots import build_transaction
from d2m_node.errors import ChainUnavailable, TransactionReverted, UserError
from d2m_node.ports import SignerPort
from d2m_node.settings import SendingSettings
from protocol.errors import InvalidParams
from protocol.hashing import keccak
from protocol.params import ProtocolParams, validate_params
from protocol.types import Address, BlockNumber, Wei

RECEIPT_PATIENCE_SECONDS = 300.0
RECEIPT_POLL_SECONDS = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployment:
    """A market on a chain."""

    chain_id: int
    addresses: Mapping[str, Address]
    """By contract name."""
    deployment_block: BlockNumber
    """The first block with one of the contracts."""

    @property
    def market(self) -> Address:
        """The address that nodes need; the market names the others."""
        return self.addresses["Market"]


def load_params(path: Path) -> ProtocolParams:
    """Read a deployment's parameters. Raises UserError that names the file, field and fix."""
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as exc:
        raise UserError(f"{path}: {exc.strerror}; give a file of parameters") from exc
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as exc:
        raise UserError(f"{path}: not TOML: {exc}") from exc
    names = {field.name for field in fields(ProtocolParams)}
    for name in sorted(content.keys() - names):
        raise UserError(f"{path}: unknown key {name}; remove it")
    for name in sorted(names - content.keys()):
        raise UserError(f"{path}: {name} is missing; add it")
    token = _read_address(path, "token", content.pop("token"))
    values = {name: _read_integer(path, name, value) for name, value in content.items()}
    min_stake_wei = Wei(values.pop("min_stake_wei"))
    params = ProtocolParams(min_stake_wei=min_stake_wei, token=token, **values)
    try:
        validate_params(params)
    except InvalidParams as exc:
        raise UserError(f"{path}: {exc}") from exc
    return params


def predict_address(deployer: Address, nonce: int) -> Address:
    """Compute where a contract created by an account's nonce will be."""
    return Address(keccak(rlp.encode([deployer, nonce]))[12:])


def encode_creations(
    addresses: Mapping[str, Address], params: ProtocolParams
) -> Iterator[EncodedCall]:
    """Encode the creation of each contract, in the order of `CONTRACTS`, with its arguments."""
    arguments = {
        **{_to_snake_case(name): address for name, address in addresses.items()},
        "params": astuple(params),
        "contracts": tuple(addresses[name] for name in OTHERS),
    }
    for name in CONTRACTS:
        data = encode_constructor(load_artifact(name), arguments)
        yield encode_creation(name, data)


def encode_creation(name: str, data: bytes) -> EncodedCall:
    """Make the call that creates a contract, of its bytecode and arguments."""
    return EncodedCall(label=f"deploy {name}", to=None, data=data, value_wei=Wei(0))


async def deploy(rpc_url: str, signer: SignerPort, params: ProtocolParams) -> Deployment:
    """Deploy the contracts and wait until they are mined.

    Raises
    ------
    TransactionReverted
        If a constructor refuses the parameters, or the account cannot pay.
    ChainUnavailable
        If the endpoint fails, or the contracts are not mined within minutes.
    """
    async with open_client([rpc_url]) as client:
        return await _Deployer(client, signer, params).deploy()


class _Deployer:
    """One run of `deploy`."""

    def __init__(self, client: RpcClient, signer: SignerPort, params: ProtocolParams) -> None:
        self._client = client
        self._signer = signer
        self._params = params

    async def deploy(self) -> Deployment:
        chain_answer, nonce_answer = await self._client.batch(
            [
                Request("eth_chainId"),
                Request("eth_getTransactionCount", (to_hex(self._signer.address), "pending")),
            ]
        )
        chain_id = parse_quantity(chain_answer)
        first_nonce = parse_quantity(nonce_answer)
        addresses = {
            name: predict_address(self._signer.address, nonce)
            for nonce, name in enumerate(CONTRACTS, start=first_nonce)
        }
        creations = encode_creations(addresses, self._params)
        hashes = [
            await self._send(creation, chain_id=chain_id, nonce=nonce)
            for nonce, creation in enumerate(creations, start=first_nonce)
        ]
        blocks = [
            await self._wait_created(name, transaction_hash)
            for name, transaction_hash in zip(CONTRACTS, hashes, strict=True)
        ]
        return Deployment(
            chain_id=chain_id, addresses=addresses, deployment_block=BlockNumber(min(blocks))
        )

    async def _send(self, creation: EncodedCall, *, chain_id: int, nonce: int) -> bytes:
        """Send the creation of one contract; return the transaction's hash."""
        cap = SendingSettings().max_fee_wei
        quote = await quote_call(self._client, self._signer.address, creation, max_fee_wei=cap)
        transaction = build_transaction(chain_id, nonce, creation, quote)
        raw = sign_transaction(transaction, self._signer)
        await self._client.call("eth_sendRawTransaction", to_hex(raw))
        return keccak(raw)

    async def _wait_created(self, name: str, transaction_hash: bytes) -> int:
        """Return the block in which a contract was created."""
        with trio.move_on_after(RECEIPT_PATIENCE_SECONDS):
            while True:
                receipt = await self._client.call(
                    "eth_getTransactionReceipt", to_hex(transaction_hash)
                )
                if isinstance(receipt, dict):
                    if parse_quantity(receipt.get("status")) != 1:
                        raise TransactionReverted(f"deploy {name}", "out of gas when mined")
                    return parse_quantity(receipt.get("blockNumber"))
                await trio.sleep(RECEIPT_POLL_SECONDS)
        raise ChainUnavailable(f"the creation of {name} was sent and is not mined")


def _to_snake_case(name: str) -> str:
    return "".join("_" + c.lower() if c.isupper() else c for c in name).removeprefix("_")


def _read_integer(path: Path, name: str, value: object) -> int:
    """Take an integer, or one in quotes: TOML's own end at 2**63."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, str) and value.isdecimal():
        return int(value)
    raise UserError(f"{path}: {name} is {value!r}; give a whole number")


def _read_address(path: Path, name: str, value: object) -> Address:
    if isinstance(value, str) and is_hex_address(value):
        return Address(to_canonical_address(value))
    raise UserError(f"{path}: {name} is {value!r}; give an address, 0x and 40 hex digits")
