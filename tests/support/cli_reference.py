"""docs/CLI.md from the commands and their types: ``python -m tests.support.cli_reference``."""

import ast
import inspect
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, get_args, get_origin, get_type_hints

import click
import msgspec

from d2m_node import cli
from d2m_node.cli.options import JsonOption

PATH = Path(__file__).parents[2] / "docs" / "CLI.md"

PLAIN = {
    int: "integer",
    float: "number",
    str: "text",
    bool: "true or false",
    object: "any JSON",
}

HEAD = """\
# Commands

Written by `python -m tests.support.cli_reference` from the commands themselves; a test compares.

Every command takes `--json` and `--help`. What it prints with `--json` is one document of the shape
that is named here, on standard output; errors are one line on standard error, and the exit code
says whose they are. Shapes are stable: fields are added, and never change their meaning. Amounts
are whole numbers of the smallest unit; bytes are text, `0x` and hexadecimal digits.

## Exit codes

| Code | Meaning |
|---|---|
"""


@dataclass(frozen=True)
class Listed:
    """A command with its whole name."""

    path: str
    command: click.Command
    context: click.Context

    @property
    def json_option(self) -> JsonOption | None:
        found = (one for one in self.command.params if isinstance(one, JsonOption))
        return next(found, None)


def list_commands() -> Iterator[Listed]:
    """Walk the tree; groups themselves are no commands."""
    root = cli.cli
    with click.Context(root, info_name="d2m-node") as context:
        yield from _walk(root, "", context)


def _walk(group: click.Command, prefix: str, context: click.Context) -> Iterator[Listed]:
    assert isinstance(group, click.Group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        path = f"{prefix} {name}".strip()
        with click.Context(command, info_name=name, parent=context) as inner:
            if isinstance(command, click.Group):
                yield from _walk(command, path, inner)
            else:
                yield Listed(path, command, inner)


def render() -> str:
    """Write the whole document."""
    parts = [HEAD + "".join(f"| {code} | {text} |\n" for code, text in _list_codes())]
    shapes: dict[str, type[Any]] = {}
    parts += [_render_command(listed, shapes) for listed in list_commands()]
    parts.append("## Shapes\n")
    while any(_collect(one, shapes) for one in list(shapes.values())):
        pass
    parts += [_render_shape(shapes[name]) for name in sorted(shapes)]
    return "\n".join(parts).rstrip() + "\n"


def _list_codes() -> Iterator[tuple[str, str]]:
    for line in cli.EPILOG.splitlines():
        code, _, text = line.strip().partition("  ")
        if code.isdecimal():
            yield code, text.strip()


def _render_command(listed: Listed, shapes: dict[str, type[Any]]) -> str:
    usage = " ".join(listed.command.collect_usage_pieces(listed.context))
    text = textwrap.fill(" ".join((listed.command.help or "").split()), 100)
    option = listed.json_option
    lines = [f"## d2m-node {listed.path}\n", f"`d2m-node {listed.path} {usage}`\n", text + "\n"]
    options = [one for one in listed.command.params if isinstance(one, click.Option)]
    lines += ["| Option | |", "|---|---|"]
    lines += [f"| {_name(one)} | {one.help or ''} |" for one in options]
    if option is not None:
        for shape in option.shapes:
            _find_structs(shape, shapes)
        told = ", or ".join(describe(one) for one in option.shapes)
        lines.append(f"\nJSON: {told}\n")
    return "\n".join(lines)


def _name(option: click.Option) -> str:
    names = ", ".join(f"`{one}`" for one in option.opts)
    metavar = "" if option.is_flag else f" {option.make_metavar(click.Context(cli.cli))}"
    return names + metavar.replace("|", "\\|")


def describe(kind: Any) -> str:
    """Say in words what JSON a type stands for."""
    plain = {
        int: "integer",
        float: "number",
        str: "text",
        bool: "true or false",
        object: "any JSON",
    }
    if kind in plain:
        return plain[kind]
    if kind is NoneType:
        return "null"
    if _is_shape(kind):
        return f"[{kind.__name__}](#{kind.__name__.lower()})"
    origin, arguments = get_origin(kind), get_args(kind)
    if isinstance(kind, UnionType):
        return " or ".join(describe(one) for one in arguments)
    if origin is Literal:
        return " or ".join(f'"{one}"' for one in arguments)
    if origin in (list, tuple):
        return f"list of {describe(arguments[0])}"
    if origin in (dict, Mapping):
        return f"object of {describe(arguments[1])} by name"
    raise TypeError(f"no words for {kind!r}")


def _is_shape(kind: Any) -> bool:
    return isinstance(kind, type) and (issubclass(kind, msgspec.Struct) or is_dataclass(kind))


def _list_fields(shape: type[Any]) -> list[str]:
    return [one.name for one in fields(shape)] if is_dataclass(shape) else shape.__struct_fields__


def _find_structs(kind: Any, known: dict[str, type[Any]]) -> None:
    if _is_shape(kind):
        known[kind.__name__] = kind
    for argument in get_args(kind):
        _find_structs(argument, known)


def _collect(shape: type[Any], known: dict[str, type[Any]]) -> bool:
    """Add the shapes that a shape's fields name; tell whether there was a new one."""
    before = len(known)
    for kind in get_type_hints(shape).values():
        _find_structs(kind, known)
    return len(known) > before


def _render_shape(shape: type[Any]) -> str:
    hints, words = get_type_hints(shape), _read_words(shape)
    title = shape.__doc__ if "__doc__" in vars(shape) and shape.__doc__ else ""
    lines = [f"### {shape.__name__}\n"]
    if title:
        lines.append(" ".join(title.split()) + "\n")
    lines += ["| Field | JSON | |", "|---|---|---|"]
    for field in _list_fields(shape):
        lines.append(f"| `{field}` | {describe(hints[field])} | {words.get(field, '')} |")
    return "\n".join(lines) + "\n"


def _read_words(shape: type[Any]) -> dict[str, str]:
    """Read the text below each field."""
    (tree,) = ast.parse(textwrap.dedent(inspect.getsource(shape))).body
    assert isinstance(tree, ast.ClassDef)
    words = {}
    for field, text in zip(tree.body, tree.body[1:], strict=False):
        is_text = isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant)
        if isinstance(field, ast.AnnAssign) and is_text:
            assert isinstance(field.target, ast.Name)
            words[field.target.id] = " ".join(str(text.value.value).split()).replace("|", "\\|")
    return words


if __name__ == "__main__":
    PATH.parent.mkdir(exist_ok=True)
    PATH.write_text(render(), encoding="utf-8")
