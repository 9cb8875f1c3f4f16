"""What an OpenRPC 1.3 document looks like, as a JSON Schema, from the specification's text.

Stricter than the specification where this project is: params go by name, every schema and every
error is there.
"""

from typing import Any, Final

_DESCRIPTOR: Final = {
    "type": "object",
    "required": ["name", "schema"],
    "properties": {
        "name": {"type": "string", "minLength": 1},
        "summary": {"type": "string"},
        "description": {"type": "string"},
        "required": {"type": "boolean"},
        "schema": {"$ref": "http://json-schema.org/draft-07/schema#"},
        "deprecated": {"type": "boolean"},
    },
    "patternProperties": {"^x-": {}},
    "additionalProperties": False,
}

_ERROR: Final = {
    "type": "object",
    "required": ["code", "message"],
    "properties": {
        "code": {"type": "integer"},
        "message": {"type": "string", "minLength": 1},
        "data": {},
    },
    "additionalProperties": False,
}

_REFERENCE: Final = {
    "type": "object",
    "required": ["$ref"],
    "properties": {"$ref": {"type": "string", "format": "uri-reference"}},
    "additionalProperties": False,
}

_METHOD: Final = {
    "type": "object",
    "required": ["name", "summary", "params", "result", "errors", "paramStructure"],
    "properties": {
        "name": {"type": "string", "pattern": r"^[a-z]+\.[a-z_]+$"},
        "summary": {"type": "string", "minLength": 1},
        "description": {"type": "string"},
        "params": {"type": "array", "items": _DESCRIPTOR},
        "result": _DESCRIPTOR,
        "errors": {"type": "array", "minItems": 1, "items": {"oneOf": [_ERROR, _REFERENCE]}},
        "paramStructure": {"const": "by-name"},
        "deprecated": {"type": "boolean"},
    },
    "patternProperties": {"^x-": {}},
    "additionalProperties": False,
}

OPENRPC: Final[dict[str, Any]] = {
    "$schema": "http://json-schema.org/draft-07/schema#",
    "type": "object",
    "required": ["openrpc", "info", "methods"],
    "properties": {
        "openrpc": {"type": "string", "pattern": r"^1\.3\.[0-9]+$"},
        "info": {
            "type": "object",
            "required": ["title", "version"],
            "properties": {
                "title": {"type": "string"},
                "version": {"type": "string"},
                "description": {"type": "string"},
            },
            "additionalProperties": False,
        },
        "methods": {"type": "array", "minItems": 1, "items": _METHOD},
        "components": {
            "type": "object",
            "properties": {
                "schemas": {
                    "type": "object",
                    "additionalProperties": {"$ref": "http://json-schema.org/draft-07/schema#"},
                },
                "errors": {"type": "object", "additionalProperties": _ERROR},
            },
            "additionalProperties": False,
        },
    },
    "additionalProperties": False,
}


def params_schema(document: dict[str, Any], method: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of a method's params, as one object."""
    return {
        "type": "object",
        "properties": {one["name"]: one["schema"] for one in method["params"]},
        "required": [one["name"] for one in method["params"] if one["required"]],
        "additionalProperties": False,
        "components": document["components"],
    }


def result_schema(document: dict[str, Any], method: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of a method's result."""
    return {**method["result"]["schema"], "components": document["components"]}


def error_codes(document: dict[str, Any], method: dict[str, Any]) -> set[int]:
    """Return the codes of the errors that a method declares."""
    errors = document["components"]["errors"]
    return {errors[one["$ref"].rpartition("/")[2]]["code"] for one in method["errors"]}
