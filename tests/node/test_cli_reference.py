"""Every command has help, `--json` of a stated shape, and its place in docs/CLI.md."""

import os
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from d2m_node import cli
from tests.node.test_cli import Ended, in_thread
from tests.node.test_cli import command as command_fixture
from tests.node.test_cli import node as node_fixture
from tests.support.cli_reference import PATH, Listed, describe, list_commands, render
from tests.support.rpc import FakeNode

command, node = command_fixture, node_fixture

COMMANDS = {listed.path: listed for listed in list_commands()}


@pytest.mark.parametrize("listed", COMMANDS.values(), ids=COMMANDS)
def test_every_command_has_help_and_json_of_a_stated_shape(listed: Listed) -> None:
    assert listed.command.help, "no help"
    assert listed.json_option is not None, "no --json of a stated shape: use json_of"
    assert listed.json_option.opts == ["--json"]
    assert all(describe(shape) for shape in listed.json_option.shapes)
    options = [one for one in listed.command.params if one.param_type_name == "option"]
    assert all(getattr(one, "help", None) for one in options)
    assert f"\n## d2m-node {listed.path}\n" in PATH.read_text(encoding="utf-8")


def test_the_reference_is_that_of_these_commands() -> None:
    written = PATH.read_text(encoding="utf-8")
    assert written == render(), "run python -m tests.support.cli_reference"


def test_the_codes_in_the_reference_are_those_that_commands_end_with() -> None:
    text = PATH.read_text(encoding="utf-8")
    codes = {
        0,
        2,
        cli.EXIT_BUG,
        cli.EXIT_USER_ERROR,
        cli.EXIT_FATAL,
        cli.EXIT_UNREACHABLE,
        cli.EXIT_INTERRUPTED,
    }
    for code in codes:
        assert f"\n| {code} | " in text


def check(path: str, ended: Ended) -> None:
    """What was printed is of one of the shapes that the command names."""
    option = COMMANDS[path].json_option
    assert option is not None
    assert ended.code == 0, ended.err
    assert any(fits(ended.json, shape) for shape in option.shapes)


def fits(plain: object, shape: object) -> bool:
    try:
        read = msgspec.convert(plain, shape)
    except msgspec.ValidationError:
        return False
    return bool(msgspec.to_builtins(read) == plain)


@pytest.mark.parametrize("path", ["status", "peers", "jobs", "roles", "earnings"])
async def test_what_a_running_node_says_has_the_stated_shape(
    node: FakeNode, command: object, path: str
) -> None:
    check(path, await in_thread(command, *path.split(), "--json"))


@pytest.mark.parametrize(
    "path",
    ["config show", "config show --origin", "config check", "key show", "key confirm-backup"],
)
def test_what_is_read_from_disk_has_the_stated_shape(command: object, path: str) -> None:
    market = "0x" + "5f" * 20
    check("init", command("init", "--network", "devnet", "--market", market, "--json"))  # type: ignore[operator]
    check(path.removesuffix(" --origin"), command(*path.split(), "--json"))  # type: ignore[operator]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_completion_has_the_stated_shape_and_names_its_place(command: object, shell: str) -> None:
    ended = command("completion", shell, "--json")  # type: ignore[operator]
    check("completion", ended)
    assert "_D2M_NODE_COMPLETE" in ended.json["script"]
    assert ended.json["install"].startswith(f"d2m-node completion {shell} >")


def complete(words: str, position: int) -> list[str]:
    """What a bash would be told."""
    environment = os.environ | {
        "_D2M_NODE_COMPLETE": "bash_complete",
        "COMP_WORDS": words,
        "COMP_CWORD": str(position),
    }
    script = "import sys; sys.argv[0] = 'd2m-node'; from d2m_node.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[2],
    )
    return [line.partition(",")[2] for line in done.stdout.splitlines()]


def test_a_shell_completes_commands_and_options() -> None:
    assert complete("d2m-node ear", 1) == ["earnings"]
    assert complete("d2m-node key exp", 2) == ["export"]
    assert "--why" in complete("d2m-node earnings --w", 2)


def test_the_bash_script_is_one_that_bash_reads(command: object, tmp_path: Path) -> None:
    script = tmp_path / "complete.sh"
    script.write_text(command("completion", "bash").out)  # type: ignore[operator]
    subprocess.run(["bash", "-n", str(script)], check=True)
