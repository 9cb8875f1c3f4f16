"""JSON-RPC 2.0 as bytes: batches of requests, their answers, and the values in them."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from d2m_node.errors import ChainUnavailable

Json = Any
"""What a JSON parser returns; whoever asked checks what it takes from it."""

_QUANTITY = re.compile("0x[0-9a-fA-F]{1,64}")  # the EVM's words have 32 bytes


@dataclass(frozen=True, slots=True)
class Request:
    """One JSON-RPC call."""

    method: str
    params: tuple[Json, ...] = ()


class RequestRefused(ChainUnavailable):
    """An endpoint answered a request with a JSON-RPC error.

    Whoever can tell what the error means catches it; to all others the chain is unavailable.
    """

    def __init__(self, method: str, code: int, message: str, data: Json) -> None:
        super().__init__(f"{method} refused: {shorten(message)} (code {code})")
        self.method = method
        self.code = code
        self.message = message
        self.data = data


def encode_batch(batch: Sequence[Request]) -> bytes:
    """Write a batch; the requests are numbered from zero."""
    return msgspec.json.encode(
        [
            {"jsonrpc": "2.0", "id": number, "method": request.method, "params": request.params}
            for number, request in enumerate(batch)
        ]
    )


def decode_answers(batch: Sequence[Request], body: bytes) -> list[Json]:
    """Read the answers to a batch, in the order of its requests; they may come in any.

    A refused request yields its RequestRefused. Raises ChainUnavailable if the body is no answer
    to this batch.
    """
    try:
        answers = msgspec.json.decode(body)
    except (msgspec.DecodeError, ValueError, RecursionError) as exc:
        raise ChainUnavailable("the answer is not JSON") from exc
    if isinstance(answers, dict):
        # Some servers refuse a batch as a whole.
        refused = _read_answer("the batch", answers)
        raise refused if isinstance(refused, RequestRefused) else _not_a_batch()
    if not isinstance(answers, list) or not all(isinstance(one, dict) for one in answers):
        raise _not_a_batch()
    by_number = {one["id"]: one for one in answers if isinstance(one.get("id"), int)}
    if len(answers) != len(batch) or by_number.keys() != set(range(len(batch))):
        raise _not_a_batch()
    return [_read_answer(request.method, by_number[n]) for n, request in enumerate(batch)]


def _read_answer(method: str, answer: Json) -> Json:
    match answer:
        case {"error": {"code": int(code), "message": str(message)} as error}:
            return RequestRefused(method, code, message, error.get("data"))
        case {"result": result}:
            return result
        case _:
            raise ChainUnavailable(f"{method} has neither result nor error")


def _not_a_batch() -> ChainUnavailable:
    return ChainUnavailable("the answer to a batch is not a batch")


def parse_quantity(value: Json) -> int:
    """Read a JSON-RPC quantity. Raises ChainUnavailable if it is none."""
    if isinstance(value, RequestRefused):
        raise value
    if not isinstance(value, str) or _QUANTITY.fullmatch(value) is None:
        raise ChainUnavailable(f"{shorten(value)} is not a quantity")
    return int(value, 16)


def parse_bytes(value: Json, length: int | None = None) -> bytes:
    """Read JSON-RPC data, of ``length`` bytes if given. Raises ChainUnavailable otherwise."""
    if isinstance(value, RequestRefused):
        raise value
    if isinstance(value, str) and value.startswith("0x"):
        try:
            data = bytes.fromhex(value[2:])
        except ValueError:
            data = None
        if data is not None and length in (None, len(data)):
            return data
    raise ChainUnavailable(f"{shorten(value)} is not data of the expected length")


def to_hex(data: bytes) -> str:
    """Write JSON-RPC data."""
    return "0x" + data.hex()


def shorten(value: object) -> str:
    """Write a value for people; what an endpoint says has no bound of its own."""
    text = str(value)
    return text if len(text) <= 200 else text[:200] + "..."
