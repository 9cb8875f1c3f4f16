"""`d2m-node completion`: click's own scripts, and where they go."""

from typing import Final

import click
from click.shell_completion import get_completion_class

from d2m_node.cli.options import json_of
from d2m_node.cli.output import print_result
from d2m_node.cli.shapes import CompletionScript

PROGRAM: Final = "d2m-node"
VARIABLE: Final = "_D2M_NODE_COMPLETE"
"""Click derives it from the program's name when the shell asks."""

INSTALL: Final = {
    "bash": "d2m-node completion bash >> ~/.bashrc",
    "zsh": "d2m-node completion zsh >> ~/.zshrc",
    "fish": "d2m-node completion fish > ~/.config/fish/completions/d2m-node.fish",
}

EPILOG: Final = "\b\n" + "\n".join(f"{shell + ':':<6}{line}" for shell, line in INSTALL.items())


@click.command(epilog=EPILOG)
@click.argument("shell", type=click.Choice(sorted(INSTALL)))
@json_of(CompletionScript)
def completion(*, shell: str, as_json: bool) -> None:
    """Print the script that lets a shell complete commands and options."""
    kind = get_completion_class(shell)
    assert kind is not None, "click knows the shells that we name"
    root = click.get_current_context().find_root().command
    source = kind(root, {}, PROGRAM, VARIABLE).source()
    if as_json:
        print_result(CompletionScript(shell=shell, script=source, install=INSTALL[shell]))
    else:
        click.echo(source)
