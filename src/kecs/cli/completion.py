"""`kecs completion`: the script that teaches a shell to complete `kecs`."""

from __future__ import annotations

import click

from kecs.cli import output as out
from kecs.cli.commands import command


@command("completion")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]), metavar="bash|zsh|fish")
def completion(shell: str) -> None:
    """Print the completion script of a shell.

    \b
    bash:  eval "$(kecs completion bash)"      in ~/.bashrc (bash 4.4 or newer)
    zsh:   eval "$(kecs completion zsh)"       in ~/.zshrc, after compinit
    fish:  kecs completion fish > ~/.config/fish/completions/kecs.fish
    """  # noqa: D301 - click reads \b
    from click import shell_completion

    from kecs.cli.main import COMPLETE, cli

    kind = shell_completion.get_completion_class(shell)
    assert kind is not None, "click has bash, zsh and fish"
    script = kind(cli, {}, "kecs", COMPLETE)
    # `source()` of the class for bash runs bash for its version first; the template needs nothing.
    out.line((script.source_template % script.source_vars()).strip())
