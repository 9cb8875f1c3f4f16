"""What a node asks a market before it follows it."""

from collections.abc import Sequence
from dataclasses import astuple, replace

import pytest
from eth_abi.abi import encode

from d2m_node.calls import ApproveToken, CloseAuction
from d2m_node.chain.adapter import find_market
from d2m_node.chain.artifacts import OTHERS, load_artifact
from d2m_node.chain.json_rpc import Json, Request, to_hex
from d2m_node.errors import WrongNetwork
from protocol.params import ProtocolParams
from protocol.types import Address, JobId, Wei
from tests.support.chain import ADDRESSES, ScriptedChain
from tests.support.params import PARAMS

TOKEN = Address(b"\x70" * 20)


class MarketChain(ScriptedChain):
    """A scripted chain whose market answers its views."""

    def __init__(self, params: ProtocolParams) -> None:
        super().__init__()
        self.mine()
        self.code = "0x00"
        self.views = {
            "contracts": tuple(ADDRESSES[name] for name in OTHERS),
            "params": astuple(params),
        }
        self.asked_views: list[str] = []

    async def batch(self, batch: Sequence[Request]) -> list[Json]:
        return [self._view(one) if self._is_own(one) else self._answer(one) for one in batch]

    def _is_own(self, request: Request) -> bool:
        return request.method in ("eth_getCode", "eth_call")

    def _view(self, request: Request) -> Json:
        if request.method == "eth_getCode":
            return self.code
        call = request.params[0]
        assert isinstance(call, dict)
        functions = load_artifact("Market").functions
        (name,) = (one for one in functions if to_hex(functions[one].selector) == call["data"])
        self.asked_views.append(name)
        (output,) = functions[name].outputs
        return to_hex(encode([output.abi_type], [self.views[name]]))


@pytest.fixture(autouse=True)
def blocks_without_headers(monkeypatch: pytest.MonkeyPatch) -> None:
    """The scripted chain has no headers to check."""

    async def take_all(*_: object) -> None:
        pass

    monkeypatch.setattr("d2m_node.chain.adapter._check_randomness", take_all)


async def test_one_view_names_all_contracts() -> None:
    chain = MarketChain(PARAMS)
    market = await find_market(chain, ADDRESSES["Market"])  # type: ignore[arg-type]
    assert chain.asked_views == ["contracts", "params"]
    assert market.params == PARAMS
    assert set(market.bindings.addresses) == {ADDRESSES[name] for name in (*OTHERS, "Market")}
    call = CloseAuction(auction=JobId(1))
    assert market.bindings.encode_call(call).to == ADDRESSES["Market"]


async def test_the_token_is_known_where_there_is_one() -> None:
    chain = MarketChain(replace(PARAMS, token=TOKEN))
    market = await find_market(chain, ADDRESSES["Market"])  # type: ignore[arg-type]
    call = ApproveToken(spender="Appeals", amount_wei=Wei(1))
    assert market.bindings.encode_call(call).to == TOKEN
    assert TOKEN not in market.bindings.addresses


async def test_an_address_without_a_contract_is_named() -> None:
    chain = MarketChain(PARAMS)
    chain.code = "0x"
    with pytest.raises(WrongNetwork, match="no contract at the market's address"):
        await find_market(chain, ADDRESSES["Market"])  # type: ignore[arg-type]
