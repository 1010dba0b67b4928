"""The `kecs` command: its table of commands, and the one place where errors become words and exit codes.

docs/design/contracts.md, 6: standard output carries results only; an error is `error: …`, an empty line
and `hint: …` on standard error.
"""

from __future__ import annotations

import os
import re
import sys
from typing import cast

import click

from kecs import __version__
from kecs.cli.commands import Entry, Group
from kecs.cli.session import Session, paint
from kecs.errors import ExitCode, KecsError

COMMANDS = {
    "start": Entry("kecs.cli.start:start", "Start the instance and return when its API answers."),
    "stop": Entry("kecs.cli.stop:stop", "Stop the instance: nothing of it keeps running."),
    "destroy": Entry("kecs.cli.stop:destroy", "Stop the instance and delete all it knows."),
    "status": Entry("kecs.cli.status:status", "Show how the instance is; exit code 0 when it runs."),
    "list": Entry("kecs.cli.status:list_instances", "List the instances of this machine."),
    "ps": Entry("kecs.cli.ps:ps", "List services and tasks, and the forwards that reach them."),
    "logs": Entry("kecs.cli.logs:logs", "Print what tasks or daemons wrote."),
    "explain": Entry("kecs.cli.explain:explain", "Explain a service, a task or a forward: why it is so."),
    "doctor": Entry("kecs.cli.doctor:doctor", "Look over this machine: what is wrong, and what to do."),
    "env": Entry("kecs.cli.env:env", "Print what a shell needs for boto3 and the AWS CLI."),
    "image": Entry("kecs.cli.image:image", "Bring images of this machine's Docker into the k3d cluster."),
    "secrets": Entry("kecs.cli.secrets:secrets", "Keep the values of secrets for task definitions."),
    "port-forward": Entry(
        "kecs.cli.port_forward:port_forward", "Forward ports to services and tasks (`pf`)."
    ),
    "completion": Entry("kecs.cli.completion:completion", "Print the completion script of a shell."),
    "version": Entry("kecs.cli.version:version", "Print the version."),
}

BUG = "this is a bug in KECS"
COMPLETE = "_KECS_COMPLETE"
"""The variable by which a shell asks for completions; `kecs completion` writes it into the script."""


@click.group(
    "kecs",
    cls=Group,
    entries=COMMANDS,
    aliases={"pf": "port-forward"},
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog='Start with `kecs start`, then `eval "$(kecs env)"` and any AWS SDK or the AWS CLI.',
)
@click.version_option(__version__, "-V", "--version", message="kecs %(version)s")
def cli() -> None:
    """Amazon ECS on your own machine, and port forwards to it that do not die."""


def main() -> None:
    """Run the command line and exit."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """Run one command; return its exit code. Nothing escapes as a traceback."""
    try:
        if os.environ.get(COMPLETE):
            cli.main(arguments, prog_name="kecs", complete_var=COMPLETE)
        # Not `cli.main`: it takes a reader that left for an error.
        with cli.make_context("kecs", arguments, obj=Session()) as context:
            code = cli.invoke(context)
        sys.stdout.flush()
    except click.exceptions.Exit as done:
        return done.exit_code
    except KecsError as error:
        return show(error)
    except click.exceptions.NoArgsIsHelpError as error:
        sys.stderr.write(f"{error.format_message()}\n")
        return ExitCode.USAGE
    except click.UsageError as error:
        return show(usage(error))
    except click.ClickException as error:
        return show(KecsError(sentence(error.format_message())))
    except (KeyboardInterrupt, click.Abort):
        if sys.stderr.isatty():
            sys.stderr.write("\n")  # behind the terminal's ^C
        return ExitCode.INTERRUPTED
    except BrokenPipeError:
        # The reader has left, as `head` does. What is still buffered would fail again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return ExitCode.DONE
    except Exception as error:  # noqa: BLE001 - the top of the process
        return show(unexpected(error))
    return code if isinstance(code, int) else ExitCode.DONE


def show(error: KecsError) -> int:
    """Print an error and its hint on standard error; return the exit code."""
    terminal = sys.stderr.isatty()
    text = f"{paint('error', 'red', terminal)}: {error.message}\n"
    if error.hint:
        text += f"\n{paint('hint', 'cyan', terminal)}: {error.hint}\n"
    sys.stderr.write(text)
    return int(error.exit_code)


def usage(error: click.UsageError) -> KecsError:
    """Turn click's words into ours, with the help of the command as the hint."""
    path = error.ctx.command_path if error.ctx else "kecs"
    hint = f"see `{path} --help`"
    message = error.format_message()
    similar: list[str] = []
    if isinstance(error, click.exceptions.NoSuchCommand) and error.ctx:
        import difflib

        names = cast("Group", error.ctx.command).list_commands(error.ctx)
        similar = difflib.get_close_matches(error.command_name, names)
    elif isinstance(error, click.exceptions.NoSuchOption):
        message, similar = error.message, error.possibilities or []
    if similar:
        hint = f"did you mean {' or '.join(f'`{name}`' for name in similar)}? {hint}"
    return KecsError(sentence(message), hint, ExitCode.USAGE)


def sentence(text: str) -> str:
    """Return one of click's messages as this program writes them: backticks, no capital, no period."""
    text = re.sub(r"'([^'\n]*)'", r"`\1`", " ".join(text.split())).removesuffix(".")
    return text[:1].lower() + text[1:]


def unexpected(error: Exception) -> KecsError:
    """Turn an exception nobody foresaw into one line, and keep its traceback."""
    import tempfile
    import traceback

    trace = "".join(traceback.format_exception(error))
    what = f"{BUG}: {type(error).__name__}: {' '.join(str(error).split())}"
    if os.environ.get("KECS_DEBUG"):
        sys.stderr.write(trace)
        return KecsError(what, "report it with the traceback above")
    try:
        with tempfile.NamedTemporaryFile(
            "w", prefix="kecs-traceback-", suffix=".txt", delete=False, encoding="utf-8"
        ) as file:
            file.write(trace)
    except OSError:
        return KecsError(what, "run it again with KECS_DEBUG=1 for the traceback")
    return KecsError(what, f"report it with `{file.name}`; KECS_DEBUG=1 shows the traceback")
