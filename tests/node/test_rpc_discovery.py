"""The OpenRPC document: well-formed, complete, and what the server holds calls against."""

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from d2m_node import client as api
from d2m_node.client import AsyncRpcClient, ErrorCode, Scope
from d2m_node.rpc.discovery import describe_methods
from d2m_node.rpc.methods import ENDPOINTS
from tests.support.openrpc import OPENRPC, error_codes, params_schema, result_schema
from tests.support.rpc import FakeNode, serve_fake_node
from tests.support.rpc_table import DOCUMENT, make_table, read_table

METHODS = [endpoint.method for endpoint in ENDPOINTS.values()]


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    return describe_methods(METHODS)


def test_the_document_is_openrpc(document: dict[str, Any]) -> None:
    jsonschema.Draft7Validator.check_schema(OPENRPC)
    jsonschema.validate(document, OPENRPC)


def test_every_method_is_in_it_with_its_scope(document: dict[str, Any]) -> None:
    described = {one["name"]: one for one in document["methods"]}
    assert sorted(described) == sorted(ENDPOINTS)
    scopes = {scope.value for scope in Scope}
    for one in described.values():
        declared = one["x-scope"]
        assert set(declared.values() if isinstance(declared, dict) else [declared]) <= scopes


def test_every_method_is_a_value_of_the_client() -> None:
    values = [value for value in vars(api).values() if isinstance(value, api.Method)]
    assert sorted(one.name for one in values) == sorted(ENDPOINTS)
    for name in vars(api):
        assert name.startswith("_") or name in api.__all__ or name in MODULES


MODULES = {path.stem for path in Path(api.__file__).parent.glob("*.py")}


def test_schemas_and_references_are_whole(document: dict[str, Any]) -> None:
    for method in document["methods"]:
        for schema in (params_schema(document, method), result_schema(document, method)):
            jsonschema.Draft202012Validator.check_schema(schema)
            jsonschema.Draft202012Validator(schema).is_valid({})  # resolves references
        codes = error_codes(document, method)
        assert ErrorCode.WRONG_PARAMS in codes
        assert ErrorCode.INTERNAL not in codes


def test_a_method_that_may_move_money_takes_a_key_and_may_refuse_it(
    document: dict[str, Any],
) -> None:
    for method in document["methods"]:
        keys = [one["name"] for one in method["params"]]
        assert method["x-pays"] == ("idempotency_key" in keys)
        assert (ErrorCode.KEY_REUSED in error_codes(document, method)) == method["x-pays"]


async def test_a_node_describes_itself(document: dict[str, Any], tmp_path: Path) -> None:
    socket = tmp_path / "rpc.sock"
    async with serve_fake_node(FakeNode(), socket), AsyncRpcClient(socket) as client:
        found = await client.call(api.DISCOVER, api.NoParams())
    assert found == json.loads(json.dumps(document))


def test_the_document_for_readers_lists_the_methods_as_they_are() -> None:
    assert read_table() == make_table(), "run python -m tests.support.rpc_table --record"


def test_the_document_for_readers_names_every_error() -> None:
    text = DOCUMENT.read_text()
    for code in ErrorCode:
        assert str(code.value) in text
