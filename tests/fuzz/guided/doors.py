"""Readers of what comes from an operator's tools, and from an endpoint of the chain."""

from contextlib import suppress

import msgspec

from d2m_node.chain.blocks import may_hold_logs, parse_block, parse_header
from d2m_node.chain.json_rpc import Request, RequestRefused, decode_answers
from d2m_node.client import Scope
from d2m_node.errors import ChainUnavailable
from d2m_node.rpc.calls import decode_call
from d2m_node.rpc.gates import Refused
from d2m_node.rpc.methods import ENDPOINTS
from d2m_node.user_input import explain_mismatch
from tests.fuzz.guided.reader import Reader

BATCH = (Request("eth_getBlockByNumber"), Request("eth_chainId"))
_HASH = "0x" + "11" * 32


def read_call(data: bytes) -> None:
    """A call has a known method and its parameters, or is refused in one line."""
    call = decode_call(data)
    endpoint = ENDPOINTS.get(call.method)
    if endpoint is None:
        raise Refused(-1, "unknown")  # type: ignore[arg-type]
    try:
        params = msgspec.convert(call.params, endpoint.method.params)
    except msgspec.ValidationError as exc:
        raise Refused(-1, explain_mismatch(exc)) from exc  # type: ignore[arg-type]
    assert isinstance(endpoint.method.scope_of(params), Scope)


def read_answers(data: bytes) -> None:
    """A block of an endpoint's is one, or the chain is unavailable."""
    for answer in decode_answers(BATCH, data):
        if isinstance(answer, RequestRefused):
            continue
        may_hold_logs(parse_block(answer), (1, 2**2047))
        with suppress(ChainUnavailable):
            parse_header(answer)


def _write_answer(*results: object) -> bytes:
    return msgspec.json.encode(
        [{"jsonrpc": "2.0", "id": n, "result": one} for n, one in enumerate(results)]
    )


_HEADER = {
    **dict.fromkeys(
        ("hash", "parentHash", "sha3Uncles", "stateRoot", "transactionsRoot", "receiptsRoot"),
        _HASH,
    ),
    **dict.fromkeys(("difficulty", "number", "gasLimit", "gasUsed", "timestamp"), "0x1f"),
    "miner": "0x" + "22" * 20,
    "logsBloom": "0x" + "00" * 256,
    "extraData": "0x",
    "mixHash": _HASH,
    "nonce": "0x" + "00" * 8,
    "baseFeePerGas": "0x7",
}
_CALLS = [
    msgspec.json.encode({"jsonrpc": "2.0", "id": 1, "method": name, "params": {}})
    for name in ENDPOINTS
]
READERS = [
    Reader("call of the node's", read_call, (Refused,), [*_CALLS, b"[" * 999]),
    Reader(
        "answer of an endpoint",
        read_answers,
        (ChainUnavailable,),
        [
            _write_answer(_HEADER, _HEADER),
            b'{"error": {"code": -32000, "message": "no"}}',
            b'[{"id": 0, "error": {"code": 3, "message": "x"}}, {"id": 1, "result": null}]',
        ],
    ),
]
