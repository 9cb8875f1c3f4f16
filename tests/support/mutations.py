"""Valid files, changed: TOML tables in their structure, bytes at random. For Hypothesis."""

import copy
import json
import re
from collections.abc import Mapping
from decimal import Decimal

from hypothesis import strategies as st

ODD_TEXT = st.one_of(
    st.text(max_size=30),
    st.sampled_from(
        ["", " ", "0", "-1", "1e999", "nan", "5ether", "9" * 100, "~nosuchuser", "../..", "\n"]
    ),
)
ODD_NUMBERS = st.one_of(
    st.integers(),
    st.sampled_from([0, -1, 1, 2**31, 2**63 - 1, 2**63, -(2**63), 2**64, 2**255, 2**256]),
    st.floats(),
    st.sampled_from([1e-300, 1e300, 5e-324, -0.0]),
)
ODD_VALUES = st.recursive(
    st.one_of(st.booleans(), ODD_NUMBERS, ODD_TEXT),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=6,
)
Place = tuple[str | int, ...]


@st.composite
def mutated_tables(draw: st.DrawFn, table: Mapping[str, object]) -> dict[str, object]:
    """One to three changes of a table: a value replaced, copied, moved, dropped, or a key added."""
    changed = copy.deepcopy(dict(table))
    for _ in range(draw(st.integers(1, 3))):
        places = list_places(changed)
        if not places:
            break
        place = draw(st.sampled_from(places))
        match draw(st.sampled_from(["replace", "copy", "drop", "rename", "add"])):
            case "replace":
                set_value(changed, place, draw(ODD_VALUES))
            case "copy":
                set_value(
                    changed, place, copy.deepcopy(find(changed, draw(st.sampled_from(places))))
                )
            case "drop":
                drop(changed, place)
            case "rename":
                value = find(changed, place)
                drop(changed, place)
                set_value(changed, (*place[:-1], draw(st.text(max_size=12))), value)
            case "add":
                set_value(changed, (*place[:-1], draw(st.text(max_size=12))), draw(ODD_VALUES))
    return changed


@st.composite
def damaged_bytes(draw: st.DrawFn, data: bytes) -> bytes:
    """Some bytes changed, added or cut out, or the end cut off."""
    damaged = bytearray(data)
    for _ in range(draw(st.integers(1, 6))):
        position = draw(st.integers(0, max(len(damaged) - 1, 0)))
        match draw(st.sampled_from(["change", "insert", "cut", "repeat", "end"])):
            case "change":
                damaged[position : position + 1] = bytes([draw(st.integers(0, 255))])
            case "insert":
                damaged[position:position] = draw(st.binary(max_size=9))
            case "cut":
                del damaged[position : position + draw(st.integers(1, 64))]
            case "repeat":
                damaged[position:position] = damaged[position : position + 40]
            case "end":
                del damaged[position:]
    return bytes(damaged)


def list_places(value: object, prefix: Place = ()) -> list[Place]:
    """List where values are, tables and lists included."""
    places: list[Place] = []
    items: list[tuple[str | int, object]] = []
    if isinstance(value, dict):
        items = list(value.items())
    elif isinstance(value, list):
        items = list(enumerate(value))
    for key, inner in items:
        places += [(*prefix, key), *list_places(inner, (*prefix, key))]
    return places


def find(table: object, place: Place) -> object:
    for key in place:
        table = table[key]  # type: ignore[index]
    return table


def set_value(table: object, place: Place, value: object) -> None:
    holder = find(table, place[:-1])
    if isinstance(holder, dict):
        holder[str(place[-1])] = value
    elif isinstance(holder, list):
        holder.append(value)


def drop(table: object, place: Place) -> None:
    holder = find(table, place[:-1])
    del holder[place[-1]]  # type: ignore[attr-defined]


def dump_toml(table: Mapping[str, object]) -> str:
    """Write a table as TOML, every nested one on the line of its key."""
    return "".join(f"{dump_text(key)} = {dump_value(value)}\n" for key, value in table.items())


def dump_value(value: object) -> str:
    match value:
        case bool():
            return str(value).lower()
        case int() | Decimal():
            return str(value)
        case float():
            text = repr(value)
            return text if re.fullmatch(r"[-+]?(inf|nan)|.*[.e].*", text) else f"{text}.0"
        case list() | tuple():
            return f"[{', '.join(map(dump_value, value))}]"
        case dict():
            inner = (f"{dump_text(key)} = {dump_value(one)}" for key, one in value.items())
            return f"{{{', '.join(inner)}}}"
        case _:
            return dump_text(str(value))


def dump_text(text: str) -> str:
    """Quote text; what TOML cannot hold, halves of surrogate pairs, is replaced."""
    text = text.encode("utf-8", "replace").decode()
    return json.dumps(text).replace("\x7f", "\\u007f") if text.isascii() else _dump_wide(text)


def _dump_wide(text: str) -> str:
    return '"' + "".join(f"\\U{ord(one):08x}" for one in text) + '"'
