"""The command and its subcommands: errors become one line and an exit code."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable
from typing import Any, NoReturn

import click

from stiqueue import standard
from stiqueue._version import __version__
from stiqueue.cli import (
    backup,
    completion,
    consume,
    cron,
    deq,
    enq,
    files,
    look,
    move,
    serve,
    settings,
    single,
    tidy,
    top,
    web,
)
from stiqueue.cli.codes import MEANINGS, ExitCode, exit_code
from stiqueue.cli.output import need, note
from stiqueue.cli.signals import deadly
from stiqueue.errors import StiQueueError

NAME = "stiqueue"
HELP = "Put messages into the queues of a StiQueue server, take them out and look at them."
EPILOG = "\n".join(
    [
        "\b",
        "Start a server first: `stiqueue serve`. The other commands are its clients. They connect to 127.0.0.1:1234;",
        "--host and --port, or STIQUEUE_HOST and STIQUEUE_PORT, name another server.",
        "",
        "\b",
        "Exit codes:",
        *(f"  {code:>3}  {meaning}" for code, meaning in MEANINGS.items()),
    ]
)


SILENT = (["serve"], ["consume"], ["web"])
"""Commands that may print nothing, such as `consume --exec`, and so run without stdout."""


class App(click.Group):
    """A group that lists its commands in the order given and exits with the codes of `codes`."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names in the order given."""
        return list(self.commands)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse a command line; options of the commands may also stand before the command."""
        own = {name for each in self.get_params(ctx) for name in each.opts}
        takes_value = {
            name: not (isinstance(each, click.Option) and each.is_flag)
            for command in self.commands.values()
            for each in command.params
            for name in each.opts
            if name.startswith("-")
        }
        early = 0
        while early < len(args) and args[early].partition("=")[0] in takes_value.keys() - own:
            early += 1 + (takes_value[args[early].partition("=")[0]] and "=" not in args[early])
        if 0 < early < len(args):
            args = [args[early], *args[:early], *args[early + 1 :]]
        return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        """Run one command.

        Catches BrokenPipeError before click does, which would exit with 1.
        """
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            return ExitCode.BROKEN_PIPE

    def main(self, *args: Any, **options: Any) -> NoReturn:
        """Run a command line and end the process with an exit code."""
        # On Windows click would expand a message "*" to file names.
        options |= {"prog_name": NAME, "standalone_mode": False, "windows_expand_args": False}
        main = super().main

        def run() -> Any:
            if sys.argv[1:2] not in SILENT:
                need("stdout")
            return main(*args, **options)

        sys.exit(_end(run))


def _end(run: Callable[[], Any]) -> int:
    """Run a command line and return its exit code; report an error in one line."""
    try:
        with deadly():
            code = run()
        sys.stdout.flush()
        return code if isinstance(code, int) else ExitCode.DONE
    except click.exceptions.NoArgsIsHelpError as error:
        with contextlib.suppress(OSError):
            error.show()
        return ExitCode.USAGE
    except click.UsageError as error:
        note(_hint(error))
        return ExitCode.USAGE
    except click.ClickException as error:
        note(error.format_message())
        return error.exit_code
    except click.Abort:
        return ExitCode.FAILED  # a question without an answer
    except BrokenPipeError:
        return ExitCode.BROKEN_PIPE
    except (StiQueueError, OSError) as error:
        note(str(error))
        return exit_code(error)
    finally:
        standard.settle()


def _hint(error: click.UsageError) -> str:
    """Return the text of a usage error, with the help command to run."""
    context = error.ctx
    path = context.command_path if context else NAME
    text = error.format_message().rstrip(".")
    return f"{text} (see `{path} --help`)"


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
    cron.cron,
    look.cnt,
    look.peek,
    look.queues,
    top.top,
    web.web,
    tidy.purge,
    tidy.redrive,
    single.cancel,
    single.reschedule,
    settings.pause,
    settings.resume,
    settings.settings,
    backup.export,
    backup.import_,
    move.move,
    files.check,
    files.salvage,
    completion.completion,
):
    if command.help:
        # A \b keeps click from rewrapping the lines after it; in a raw docstring it is two characters.
        command.help = command.help.replace("\\b\n", "\b\n")
    app.add_command(command)
