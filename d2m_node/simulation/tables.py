"""Tables of a scenario file: unknown keys are errors that say what was meant."""

from collections.abc import Mapping
from types import UnionType
from typing import Union, get_args, get_origin

import msgspec
from msgspec import Struct

from d2m_node.errors import UserError
from d2m_node.user_input import explain_unknown_key


class Table(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A table of the file."""


def check_keys(table: Mapping[str, object], struct: type[Struct], prefix: str = "") -> None:
    """Raise UserError for the first unknown key, with the known one that looks most like it."""
    known = {field.name: field.type for field in msgspec.structs.fields(struct)}
    for key, value in table.items():
        if key not in known:
            raise UserError(explain_unknown_key(prefix + key, [prefix + one for one in known]))
        nested = _find_table(known[key])
        if nested is None:
            continue
        if isinstance(value, Mapping):
            check_keys(value, nested, f"{prefix}{key}.")
        elif isinstance(value, list):
            for position, one in enumerate(value):
                if isinstance(one, Mapping):
                    check_keys(one, nested, f"{prefix}{key}[{position}].")


def _find_table(annotation: object) -> type[Struct] | None:
    """Return the table type of a field like ``Table``, ``Table | None`` or ``list[Table]``."""
    if isinstance(annotation, type) and issubclass(annotation, Table):
        return annotation
    if get_origin(annotation) in (UnionType, Union, list):
        found = (_find_table(one) for one in get_args(annotation))
        return next((one for one in found if one is not None), None)
    return None
