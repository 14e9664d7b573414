"""``stiqueue consume``."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable

import click

from stiqueue.cli.codes import ExitCode
from stiqueue.cli.deq import Print, printer, prints_messages
from stiqueue.cli.meter import Meter
from stiqueue.cli.options import WORKER_SECONDS, Target, duration, target
from stiqueue.cli.output import need, note, on_terminal, show_json
from stiqueue.cli.shell import ShellCommand, status_text
from stiqueue.cli.worker import Worker
from stiqueue.client.options import LONGEST_RETRY_DELAY
from stiqueue.limits import MAX_DELAY, MAX_PREFETCH
from stiqueue.message import Message
from stiqueue.sqclient import SQClient

NOT_STARTED = (126, 127)
"""The exit statuses of a shell that cannot run or find a command."""


@click.command()
@click.option("--exec", "command", metavar="CMD", help="Run CMD in the shell for each message instead of printing it.")
@duration(
    "--retry-delay",
    text="With --exec: the delay before the second attempt of a message whose command failed; it doubles with "
    "each further attempt, up to an hour. 0: retry at once, before all others.",
    default=1.0,
    most=LONGEST_RETRY_DELAY,
)
@click.option(
    "--prefetch",
    type=click.IntRange(1, MAX_PREFETCH),
    default=1,
    show_default=True,
    metavar="N",
    help="How many messages the server sends ahead: more is faster, fewer share better among consumers.",
)
@duration(
    "--timeout", text="Stop after this long without a message; 0: when none is ready; default: never.", most=MAX_DELAY
)
@prints_messages
@target(waits="--connect-timeout", server_seconds=WORKER_SECONDS)
@click.pass_context
def consume(
    context: click.Context,
    target: Target,
    command: str | None,
    retry_delay: float,
    prefetch: int,
    timeout: float | None,
    as_json: bool,
    null: bool,
    raw: bool,
) -> None:
    r"""Handle messages one after the other until stopped.

    Without --exec, prints each body and acks the message once the body is written and flushed.

    With --exec, runs a shell command for each message, with the body on stdin. Its environment has STIQUEUE_ID,
    STIQUEUE_ATTEMPT, STIQUEUE_QUEUE, STIQUEUE_PRIORITY, STIQUEUE_ENQUEUE_TIME_MS, a STIQUEUE_HEADER_<KEY> for each
    header, STIQUEUE_HEADERS (all of them as JSON), and STIQUEUE_HOST and STIQUEUE_PORT, so that a `stiqueue enq` in it
    reaches the same server. Exit status 0 acks the message, any other gives it back (requeues it) for another attempt;
    after the last one that `max_attempts` allows, the server makes it a dead letter. 126 and 127 (the command cannot be
    run) also end the loop, instead of failing every message. With --json, prints a line with the outcome of each
    message.

    Ctrl-C and SIGTERM let the current message finish and give back messages that were sent ahead. A second signal also
    stops the command. Exits with 0 when it runs out of messages or after SIGTERM.

    \b
    Examples:
      stiqueue consume --queue mail --exec './send --attempt "$STIQUEUE_ATTEMPT"' --retry-delay 10s
      stiqueue consume --exec 'timeout 60 ./resize' --timeout 0
      stiqueue consume --queue log --prefetch 1000 >> log.txt
    """
    show = None if command is not None and not (null or raw) else printer(as_json, null, raw)
    if command is not None and show is not None:
        raise click.UsageError("--exec prints no messages: leave out --null and --raw")
    if as_json:
        need("stdout")
    with target.client(retry_delay=retry_delay) as client:
        if show is not None:
            with Meter("consuming", hidden=on_terminal()) as meter:
                number = Worker(client, prefetch, timeout, _printing(show, meter)).run()
        else:
            assert command is not None
            shell = ShellCommand(command, {"STIQUEUE_HOST": target.host, "STIQUEUE_PORT": str(target.port)})
            handler = Handler(client, shell, as_json)
            number = Worker(client, prefetch, timeout, handler.handle, handler.kill).run()
    if number == signal.SIGINT:
        context.exit(ExitCode.INTERRUPTED)


def _printing(show: Print, meter: Meter) -> Callable[[Message], bool]:
    def handle(message: Message) -> bool:
        show(message)
        meter.add(1)
        return False

    return handle


class Handler:
    """Runs a shell command for each message and settles it by the exit status."""

    def __init__(self, client: SQClient, shell: ShellCommand, as_json: bool) -> None:
        """Run `shell` for messages of `client`, whose back-off sets the delay of failed ones."""
        self._client = client
        self._shell = shell
        self._as_json = as_json
        self._killed = False

    def handle(self, message: Message) -> bool:
        """Run the command and settle the message; always return True, for settled."""
        started = time.monotonic()
        status = self._shell.run(message)
        seconds = time.monotonic() - started
        delay = 0.0
        if status == 0:
            outcome, in_time = "acked", message.ack()
        else:
            if not (self._killed or status in NOT_STARTED):
                delay = self._client.backoff_of(message)
            outcome, in_time = "requeued", message.requeue(delay)
        if self._as_json:
            row = {"id": message.id, "queue": message.queue, "attempt": message.attempt, "status": status}
            show_json(row | {"outcome": outcome if in_time else "stale", "delay": delay, "seconds": round(seconds, 3)})
        elif status:
            again = f"requeued for {delay:g} s" if delay else "requeued"
            note(f"message {message.id}, attempt {message.attempt}: {status_text(status)}, {again}")
        if not in_time:
            note(f"message {message.id} was {outcome} too late: its lease had ended, so it is delivered again")
        if status in NOT_STARTED:
            raise click.ClickException(f"cannot run the command of --exec: {status_text(status)}")
        return True

    def kill(self) -> None:
        """Send SIGTERM to the running command; its message goes back at once unless the command succeeds."""
        self._killed = True
        self._shell.kill(signal.SIGTERM)
