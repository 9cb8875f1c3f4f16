"""The OpenRPC document as a contract: what it allows is answered as it says, and nothing else is.

Every method is called on a live server, over the unix socket and over TCP, with params that its
schema allows and with params that it does not. No answer may be an internal error, and the server
must be there after each.
"""

import copy
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import jsonschema
import pytest
import trio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis_jsonschema import from_schema

from d2m_node.client import ErrorCode, Scope
from d2m_node.rpc.discovery import describe_methods
from d2m_node.rpc.methods import ENDPOINTS
from d2m_node.user_input import read_toml
from protocol.market import MarketState
from tests.support.openrpc import error_codes, params_schema, result_schema
from tests.support.rpc import FakeNode, serve_fake_node
from tests.support.settled_job import make_job_state, make_settled_job

DOCUMENT: dict[str, Any] = json.loads(
    json.dumps(describe_methods(endpoint.method for endpoint in ENDPOINTS.values()))
)
METHODS = {method["name"]: method for method in DOCUMENT["methods"]}
REQUEST = Path(__file__).parents[2] / "configs" / "requests" / "digits.toml"

EXAMPLES = settings(
    max_examples=10,
    deadline=None,
    derandomize=True,
    suppress_health_check=[
        HealthCheck.function_scoped_fixture,
        HealthCheck.filter_too_much,
        HealthCheck.too_slow,
    ],
)

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=5,
)


@dataclass(frozen=True)
class Wire:
    """One way to the server."""

    http: httpx.Client

    def call(self, method: str, params: object) -> dict[str, Any]:
        call = {"jsonrpc": "2.0", "id": 7, "method": method, "params": params}
        response = self.http.post("", content=json.dumps(call))
        assert response.status_code == 200, response.text
        answer: dict[str, Any] = response.json()
        assert (answer["jsonrpc"], answer["id"]) == ("2.0", 7)
        assert ("result" in answer) != ("error" in answer)
        return answer


class Server(threading.Thread):
    """A fake node with a settled job behind a real server, in a thread of its own."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder
        self.ready = threading.Event()
        self.port = 0
        self._trio: trio.lowlevel.TrioToken | None = None
        self._ended: trio.Event | None = None

    def run(self) -> None:
        trio.run(self._serve)

    async def _serve(self) -> None:
        node = FakeNode()
        job = make_job_state(make_settled_job())
        node.chain.state = MarketState(jobs={job.job_id: job})
        self._trio, self._ended = trio.lowlevel.current_trio_token(), trio.Event()
        socket = self.folder / "rpc.sock"
        async with serve_fake_node(node, socket, tcp="127.0.0.1:0", token_days=1) as port:
            assert port is not None
            self.port = port
            self.ready.set()
            await self._ended.wait()

    def stop(self) -> None:
        assert self._trio is not None
        assert self._ended is not None
        self._trio.run_sync_soon(self._ended.set)
        self.join(timeout=30)
        assert not self.is_alive()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("contract"))
    server.start()
    assert server.ready.wait(timeout=30)
    yield server
    server.stop()


@pytest.fixture(scope="module", params=["socket", "tcp"])
def wire(server: Server, request: pytest.FixtureRequest) -> Iterator[Wire]:
    headers = {"content-type": "application/json"}
    base_url = f"http://127.0.0.1:{server.port}"
    transport, auth = httpx.HTTPTransport(), None

    def add_token(sent: httpx.Request) -> httpx.Request:
        # Read each time: one of the methods rotates it.
        token = (server.folder / "tokens" / Scope.ADMIN).read_text().strip()
        sent.headers["authorization"] = f"Bearer {token}"
        return sent

    if request.param == "socket":
        transport = httpx.HTTPTransport(uds=str(server.folder / "rpc.sock"))
    else:
        auth = add_token
    with httpx.Client(transport=transport, base_url=base_url, headers=headers, auth=auth) as http:
        yield Wire(http)


def check_answer(method: dict[str, Any], answer: dict[str, Any]) -> int | None:
    """Hold an answer against the document; return the error's code, if it is one."""
    assert answer.get("error", {}).get("code") != ErrorCode.INTERNAL
    if "result" in answer:
        jsonschema.validate(answer["result"], result_schema(DOCUMENT, method))
        return None
    error = answer["error"]
    assert error["code"] in error_codes(DOCUMENT, method), error
    assert error["message"]
    assert "\n" not in error["message"]
    code: int = error["code"]
    return code


@pytest.mark.parametrize("name", sorted(METHODS))
@EXAMPLES
@given(data=st.data())
def test_params_that_the_schema_allows_are_answered_as_declared(
    wire: Wire, name: str, data: st.DataObject
) -> None:
    method = METHODS[name]
    params = data.draw(_make_params(params_schema(DOCUMENT, method)))
    assert check_answer(method, wire.call(name, params)) != ErrorCode.WRONG_PARAMS


@pytest.mark.parametrize("name", sorted(METHODS))
@EXAMPLES
@given(data=st.data())
def test_params_that_the_schema_does_not_allow_are_refused(
    wire: Wire, name: str, data: st.DataObject
) -> None:
    method, schema = METHODS[name], params_schema(DOCUMENT, METHODS[name])
    params = data.draw(_break_params(schema).filter(lambda one: not _is_valid(one, schema)))
    assert check_answer(method, wire.call(name, params)) == ErrorCode.WRONG_PARAMS


@EXAMPLES
@given(data=st.data())
def test_a_request_with_anything_in_place_of_a_value_is_answered(
    wire: Wire, data: st.DataObject
) -> None:
    wire.call("roles.enable", {"role": "buyer"})
    request = json.loads(json.dumps(read_toml(REQUEST), default=float))
    table: Any = request
    while True:
        key = data.draw(st.sampled_from(sorted(table)))
        if not isinstance(table[key], dict) or data.draw(st.booleans()):
            break
        table = table[key]
    table[key] = data.draw(JSON)
    params = {"request": request, "idempotency_key": data.draw(st.text(min_size=1, max_size=128))}
    check_answer(METHODS["request.submit"], wire.call("request.submit", params))


@pytest.mark.parametrize(
    ("name", "params"),
    [
        ("request.submit", {"idempotency_key": "k", "path": "/a\x00b"}),
        ("request.submit", {"idempotency_key": "k", "path": "/" + "a" * 5000}),
        ("request.submit", {"idempotency_key": "\x00", "path": "/proc/self/mem"}),
        ("request.submit", {"idempotency_key": "k", "path": "/", "request": {}}),
        ("roles.enable", {"role": "seller", "dataset": "/a\x00b"}),
        ("roles.enable", {"role": "cone", "stake_wei": "1" * 90, "idempotency_key": "k"}),
        ("roles.enable", {"role": "cone", "stake_wei": -1, "idempotency_key": "k"}),
        ("roles.enable", {"role": "cone", "stake_wei": 2**256, "idempotency_key": "k"}),
        ("jobs.get", {"job": 2**63 - 1}),
    ],
)
def test_what_is_well_formed_and_impossible_is_explained(
    wire: Wire, name: str, params: dict[str, Any]
) -> None:
    assert check_answer(METHODS[name], wire.call(name, params)) == ErrorCode.USER_ERROR


@pytest.mark.parametrize("name", ["jobs.get", "earnings.list", "refusals.list", "job.model"])
def test_a_job_number_that_the_store_cannot_hold_is_refused(wire: Wire, name: str) -> None:
    answer = wire.call(name, {"job": 2**63})
    assert check_answer(METHODS[name], answer) == ErrorCode.WRONG_PARAMS


@EXAMPLES
@given(body=st.binary(max_size=200) | JSON.map(lambda value: json.dumps(value).encode()))
def test_whatever_is_sent_is_answered(wire: Wire, body: bytes) -> None:
    response = wire.http.post("", content=body)
    assert response.status_code == 200
    known = {ErrorCode.NO_JSON, ErrorCode.NO_REQUEST, ErrorCode.UNKNOWN_METHOD}
    assert response.json()["error"]["code"] in known


def _inline(schema: dict[str, Any]) -> dict[str, Any]:
    """Put what references stand for in their place: the generator knows no components."""
    components = schema["components"]["schemas"]

    def resolve(node: Any) -> Any:
        if isinstance(node, dict) and "$ref" in node:
            return resolve(components[node["$ref"].rpartition("/")[2]])
        if isinstance(node, dict):
            return {key: resolve(value) for key, value in node.items()}
        return [resolve(one) for one in node] if isinstance(node, list) else node

    return {key: resolve(value) for key, value in schema.items() if key != "components"}


def _make_params(schema: dict[str, Any]) -> st.SearchStrategy[dict[str, Any]]:
    """Return params that a schema allows: those that are required, and some of the others."""
    members = {key: _make_value(one) for key, one in _inline(schema)["properties"].items()}
    required = {key: members.pop(key) for key in schema["required"]}
    return st.fixed_dictionaries(required, optional=members)


def _make_value(schema: dict[str, Any]) -> st.SearchStrategy[Any]:
    """Return values that a schema allows.

    Objects without properties are made here: this version of the generator makes none.
    """
    if "anyOf" in schema:
        return st.one_of([_make_value(one) for one in schema["anyOf"]])
    if schema.get("type") == "object" and "properties" not in schema:
        return st.dictionaries(st.text(max_size=8), JSON, max_size=3)
    return from_schema(schema)


def _break_params(schema: dict[str, Any]) -> st.SearchStrategy[dict[str, Any]]:
    """Return valid params with one member added, taken away or replaced."""
    names = sorted(schema["properties"])
    member = st.sampled_from(names) if names else st.text(min_size=1, max_size=8)

    def change(params: dict[str, Any], name: str, how: str, value: Any) -> dict[str, Any]:
        changed = copy.deepcopy(params)
        if how == "add":
            changed[f"{name}_"] = value
        elif how == "take":
            changed.pop(name, None)
        else:
            changed[name] = value
        return changed

    how = st.sampled_from(["add", "take", "replace"])
    return st.builds(change, _make_params(schema), member, how, JSON)


def _is_valid(params: dict[str, Any], schema: dict[str, Any]) -> bool:
    return jsonschema.Draft202012Validator(schema).is_valid(params)
