"""``stiqueue completion``: shell completion of commands, options and queue names."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from stiqueue.cli.output import write


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    r"""Print the completion script for a shell.

    It completes commands, options and queue names. To install it:

    \b
      bash:  echo 'eval "$(stiqueue completion bash)"' >> ~/.bashrc
      zsh:   echo 'eval "$(stiqueue completion zsh)"' >> ~/.zshrc
      fish:  stiqueue completion fish > ~/.config/fish/completions/stiqueue.fish
    """
    kind = get_completion_class(shell)
    assert kind is not None
    program = context.find_root()
    script = kind(program.command, {}, "stiqueue", "_STIQUEUE_COMPLETE").source()
    write(script.encode() + b"\n")
