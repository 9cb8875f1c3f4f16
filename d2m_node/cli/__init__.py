"""Arguments → settings → the node, or a call to one that runs.

Commands are imported when they are called: `d2m-node --help` loads click and little else. This is
the one place that catches every error.

====  ==========================================================================
code  meaning
====  ==========================================================================
0     done
1     something failed that should not have: a bug, or a process that broke
2     the command line is wrong
3     what was asked cannot be done; the line says what to change
4     the node cannot run, or had to stop; the line says why
5     the node, or what it needs, cannot be reached; trying again may help
130   interrupted
====  ==========================================================================
"""

import importlib
import os
import sys
import traceback
from collections.abc import Iterator, Sequence
from typing import Final

import click
from click.shell_completion import CompletionItem

from d2m_node.cli.options import data_dir_option
from d2m_node.errors import FatalError, NodeError, TransientError, UserError
from protocol.errors import ProtocolError

EXIT_BUG: Final = 1
EXIT_USER_ERROR: Final = 3
EXIT_FATAL: Final = 4
EXIT_UNREACHABLE: Final = 5
EXIT_INTERRUPTED: Final = 130

COMMANDS: Final = {
    "init": ("d2m_node.cli.init:init", "Make a data directory with keys and a config.toml."),
    "run": ("d2m_node.cli.local:run", "Run the node until SIGTERM or Ctrl-C."),
    "key": ("d2m_node.cli.key:key", "Make, import, export or show the node's keys."),
    "config": ("d2m_node.cli.local:config", "Show or check the settings."),
    "logs": ("d2m_node.cli.logs:logs", "Show what the node has logged."),
    "backup": ("d2m_node.cli.memory:backup", "Copy what the running node remembers to a file."),
    "restore": ("d2m_node.cli.memory:restore", "Put such a copy in its place."),
    "doctor": ("d2m_node.cli.doctor:doctor", "Find what keeps the node from working, and its fix."),
    "audit": ("d2m_node.cli.audit:audit", "Compute a job's ballots and payments again."),
    "explain": ("d2m_node.cli.explain:explain", "Tell why each payee of a job got what it got."),
    "incentives": ("d2m_node.cli.incentives:incentives", "Tell whether honesty pays in a job."),
    "status": ("d2m_node.cli.status:status", "Say who and where the running node is."),
    "peers": ("d2m_node.cli.status:peers", "List the peers it knows."),
    "jobs": ("d2m_node.cli.jobs:jobs", "List the market's jobs."),
    "job": ("d2m_node.cli.jobs:job", "Describe a job, or save its model."),
    "earnings": ("d2m_node.cli.earnings:earnings", "Add up what this account earned and spent."),
    "roles": ("d2m_node.cli.remote:roles", "List the roles, and where each stands."),
    "role": ("d2m_node.cli.remote:role", "Switch a role on or off."),
    "request": ("d2m_node.cli.remote:request", "Submit a request for a model."),
    "rpc": ("d2m_node.cli.remote:rpc", "Call any method of the node's RPC."),
    "completion": ("d2m_node.cli.completion:completion", "Print a script for the shell."),
    "data": ("d2m_node.cli.data:data", "Check or get the benchmark data sets."),
    "devnet": ("d2m_node.cli.devnet:devnet", "Run a whole market on this machine."),
    "simulate": ("d2m_node.cli.simulate:simulate", "Run one in simulated time, from one seed."),
}
"""Name, where it is, and its line in the help, so that the help imports nothing."""

EPILOG: Final = """\b
Exit codes:
  0    done
  1    something failed that should not have
  2    the command line is wrong
  3    what was asked cannot be done
  4    the node cannot run, or had to stop
  5    the node, or what it needs, cannot be reached
  130  interrupted
"""


class LazyGroup(click.Group):
    """A group whose commands are imported when they are called."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        """Return the names in the order of the table."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """Import a command."""
        if cmd_name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[cmd_name][0].partition(":")
        command = getattr(importlib.import_module(module), attribute)
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """Write the table's lines, importing nothing."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in COMMANDS.items()])

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Complete names from the table, importing nothing; options as any command."""
        names = [
            CompletionItem(name, help=line)
            for name, (_, line) in COMMANDS.items()
            if name.startswith(incomplete)
        ]
        return [*names, *click.Command.shell_complete(self, ctx, incomplete)]

    def invoke(self, ctx: click.Context) -> object:
        """Run a command; done is done if nobody reads on. click would end with 1."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            # Python would complain once more at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 0


@click.group(cls=LazyGroup, epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@data_dir_option(envvar="D2M_DATA_DIR")
def cli() -> None:
    """A node of D2M, a decentralised and privacy-preserving market for trained models."""


def main() -> None:
    """Run a command and exit: the entry point."""
    sys.exit(run_command(sys.argv[1:]))


def run_command(arguments: Sequence[str]) -> int:
    """Run a command; return its exit code. Errors are one line on standard error."""
    try:
        code = cli.main(args=list(arguments), prog_name="d2m-node", standalone_mode=False)
    except click.ClickException as exc:
        exc.show()
        return exc.exit_code
    except (click.Abort, KeyboardInterrupt):
        return EXIT_INTERRUPTED
    except BaseExceptionGroup as exc:
        return _report(exc, list(_list_leaves(exc)))
    except Exception as exc:  # noqa: BLE001 - the outermost boundary
        return _report(exc, [exc])
    return code if isinstance(code, int) else 0


def _report(error: BaseException, leaves: Sequence[BaseException]) -> int:
    """Say what went wrong: known errors in one line, bugs with their trace."""
    for leaf in leaves:
        if not isinstance(leaf, NodeError | ProtocolError | KeyboardInterrupt):
            traceback.print_exception(error)
            click.echo(f"d2m-node: bug: {type(leaf).__name__}: {leaf}", err=True)
            return EXIT_BUG
    leaf = max(leaves, key=_exit_code)
    if not isinstance(leaf, KeyboardInterrupt):
        click.echo(f"d2m-node: {' '.join(str(leaf).split())}", err=True)
    return _exit_code(leaf)


def _exit_code(error: BaseException) -> int:
    match error:
        case KeyboardInterrupt():
            return EXIT_INTERRUPTED
        case TransientError():
            return EXIT_UNREACHABLE
        case FatalError():
            return EXIT_FATAL
        case UserError() | ProtocolError():
            return EXIT_USER_ERROR
        case _:
            return EXIT_BUG


def _list_leaves(group: BaseExceptionGroup[BaseException]) -> Iterator[BaseException]:
    for one in group.exceptions:
        if isinstance(one, BaseExceptionGroup):
            yield from _list_leaves(one)
        else:
            yield one
