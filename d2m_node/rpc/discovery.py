"""Every method as an OpenRPC document, made from the table of methods.

https://spec.open-rpc.org, version 1.3. Besides what OpenRPC knows, each method says with `x-scope`
which scope a caller needs, and with `x-pays` whether it may move money.
"""

from collections.abc import Iterable, Mapping
from importlib.metadata import version
from typing import Any, Final

import msgspec

from d2m_node.client import ErrorCode, Method, Scope

OPENRPC_VERSION: Final = "1.3.2"

_REF: Final = "#/components/schemas/{name}"

_MESSAGES: Final = {
    ErrorCode.WRONG_PARAMS: "the params do not fit the schema",
    ErrorCode.USER_ERROR: "what was asked cannot be done; the message says what to change",
    ErrorCode.UNAVAILABLE: "the chain or a peer does not answer; try again",
    ErrorCode.REVERTED: "a contract refused",
    ErrorCode.JOB_FAILED: "the job cannot go on",
    ErrorCode.RULE_BROKEN: "the rules of the protocol do not allow it",
    ErrorCode.FATAL: "the node stops",
    ErrorCode.UNAUTHORISED: "no token, or none that counts",
    ErrorCode.FORBIDDEN: "the token's scope does not allow it",
    ErrorCode.KEY_REUSED: "the idempotency key was used for something else",
    ErrorCode.BUSY: "too many calls at once; try again",
}
"""Of errors that a well-formed call of a known method can be answered with."""

_ONLY_PAYING: Final = frozenset({ErrorCode.KEY_REUSED})


def describe_methods(methods: Iterable[Method[Any, Any]]) -> dict[str, object]:
    """Return the OpenRPC document of some methods."""
    listed = sorted(methods, key=lambda method: method.name)
    types = [method.params for method in listed] + [method.result for method in listed]
    schemas, components = msgspec.json.schema_components(
        types, schema_hook=_describe_type, ref_template=_REF
    )
    params, results = schemas[: len(listed)], schemas[len(listed) :]
    return {
        "openrpc": OPENRPC_VERSION,
        "info": {
            "title": "d2m-node",
            "version": version("d2m-node"),
            "description": "Hex stands for bytes and begins with 0x; amounts are whole wei.",
        },
        "methods": [
            _describe(method, _resolve(given, components), result)
            for method, given, result in zip(listed, params, results, strict=True)
        ],
        "components": {
            "schemas": components,
            "errors": {
                code.name: {"code": code.value, "message": message}
                for code, message in _MESSAGES.items()
            },
        },
    }


def _describe_type(kind: type) -> dict[str, object]:
    """Return the schema of what msgspec does not describe: `object` stands for any JSON value."""
    if kind is not object:
        raise NotImplementedError
    return {"description": "any value"}


def _resolve(schema: dict[str, Any], components: dict[str, Any]) -> dict[str, Any]:
    """Return the schema that a reference stands for."""
    found: dict[str, Any] = components[schema["$ref"].rpartition("/")[2]]
    return found


def _describe(
    method: Method[Any, Any], params: dict[str, Any], result: dict[str, Any]
) -> dict[str, object]:
    required = set(params.get("required", ()))
    scope = method.scope
    return {
        "name": method.name,
        "summary": method.summary,
        "paramStructure": "by-name",
        "params": [
            {"name": name, "required": name in required, "schema": schema}
            for name, schema in params["properties"].items()
        ],
        "result": {"name": "result", "schema": result},
        "errors": [
            {"$ref": f"#/components/errors/{code.name}"}
            for code in _MESSAGES
            if method.pays or code not in _ONLY_PAYING
        ],
        "x-scope": scope.value
        if isinstance(scope, Scope)
        else {k: v.value for k, v in scope.items()},
        "x-pays": method.pays,
    }


def _by_role(scopes: Mapping[str, Scope]) -> dict[str, str]:
    return {role: scope.value for role, scope in scopes.items()}
