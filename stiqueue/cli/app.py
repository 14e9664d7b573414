"""The command itself: its subcommands, and how each of them ends."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any, NoReturn

import click

from stiqueue._version import __version__
from stiqueue.cli import backup, completion, consume, deq, enq, files, look, move, serve, tidy, top
from stiqueue.cli.codes import MEANINGS, ExitCode, exit_code
from stiqueue.cli.output import note
from stiqueue.cli.signals import deadly
from stiqueue.errors import StiQueueError

NAME = "stiqueue"
HELP = "Put messages into the queues of a StiQueue server, take them out and look at them."
EPILOG = "\n".join(
    [
        "\b",
        "Start with a server, `stiqueue serve`. Every other command is a client of it, at 127.0.0.1:1234 or where",
        "--host and --port or STIQUEUE_HOST and STIQUEUE_PORT say.",
        "",
        "\b",
        "Exit codes:",
        *(f"  {code:>3}  {meaning}" for code, meaning in MEANINGS.items()),
    ]
)


class App(click.Group):
    """A group whose commands stand in the order given and end with the exit codes of `codes`."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names in the order of use."""
        return list(self.commands)

    def invoke(self, ctx: click.Context) -> Any:
        """Run one command. Here, because click has an exit code of its own for a reader that went away."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            return ExitCode.BROKEN_PIPE

    def main(self, *args: Any, **options: Any) -> NoReturn:
        """Run a command line and end the process with an exit code."""
        # Without expansion, or on Windows a message "*" would become the names of files.
        options |= {"prog_name": NAME, "standalone_mode": False, "windows_expand_args": False}
        run = super().main
        sys.exit(_end(lambda: run(*args, **options)))


def _end(run: Callable[[], Any]) -> int:
    """Run a command line; return its exit code. What went wrong is told in one line."""
    try:
        with deadly():
            code = run()
        sys.stdout.flush()
        return code if isinstance(code, int) else ExitCode.DONE
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        return ExitCode.USAGE
    except click.UsageError as error:
        note(_hint(error))
        return ExitCode.USAGE
    except click.ClickException as error:
        note(error.format_message())
        return error.exit_code
    except click.Abort:
        return ExitCode.FAILED  # a question that was not answered
    except BrokenPipeError:
        return ExitCode.BROKEN_PIPE
    except (StiQueueError, OSError) as error:
        note(str(error))
        return exit_code(error)
    finally:
        _settle_stdout()


def _hint(error: click.UsageError) -> str:
    """Return what is wrong with a command line and where to read more."""
    context = error.ctx
    path = context.command_path if context else NAME
    text = error.format_message().rstrip(".")
    if isinstance(error, click.NoSuchOption) and context and isinstance(context.command, App):
        text += ": options go behind the command"
    return f"{text} (see `{path} --help`)"


def _settle_stdout() -> None:
    """Drop what stdout could not take, or the end of the interpreter tries once more and complains."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@click.group(
    NAME,
    cls=App,
    help=HELP,
    epilog=EPILOG,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, "-V", "--version", message="StiQueue %(version)s")
def app() -> None:
    """Run before every command."""


for command in (
    serve.serve,
    enq.enq,
    deq.deq,
    consume.consume,
    look.cnt,
    look.peek,
    look.queues,
    top.top,
    tidy.purge,
    tidy.redrive,
    backup.export,
    backup.import_,
    move.move,
    files.check,
    files.salvage,
    completion.completion,
):
    if command.help:
        # click keeps the lines behind a backspace as they are; a raw docstring has its two letters instead.
        command.help = command.help.replace("\\b\n", "\b\n")
    app.add_command(command)
