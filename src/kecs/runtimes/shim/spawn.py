"""Starts a program as a container's process: fork, become what is asked, exec, or say why not."""

from __future__ import annotations

import errno
import os
import signal

from kecs.runtimes import process

_UMASK = 0o022
"""As in a container; the daemons' own is 077."""


class CannotStart(Exception):  # noqa: N818 - the name AWS gives it
    """The program did not start; the message says why, in the words of a container runtime."""


class Program:
    """What to run, and as whom."""

    __slots__ = ("argv", "directory", "environment", "user")

    def __init__(
        self,
        argv: list[str],
        environment: dict[str, str],
        directory: str,
        user: tuple[int, int, list[int]] | None,
    ) -> None:
        self.argv = argv
        self.environment = environment
        """The whole environment."""
        self.directory = directory
        self.user = user
        """(uid, gid, supplementary gids) to change to; None: stay who we are."""


def start(program: Program, output: int) -> int:
    """Start `program` in a session of its own with `output` as its output and error; return its pid.

    Returns once the program has replaced our copy, so that an error is known. Raises `CannotStart`.
    """
    ours, theirs = os.pipe()
    shim = os.getpid()
    # No signal may run our handlers in the child, where they would write to our own wake-up pipe.
    everything = set(signal.valid_signals())
    before = signal.pthread_sigmask(signal.SIG_BLOCK, everything)
    try:
        pid = os.fork()
        if pid == 0:
            _become(program, output, theirs, shim)
    except OSError as error:
        os.close(ours)
        os.close(theirs)
        raise CannotStart(f"cannot fork: {error.strerror}") from error
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    os.close(theirs)
    try:
        message = b""
        while more := os.read(ours, 4096):
            message += more
    finally:
        os.close(ours)
    if message:
        os.waitpid(pid, 0)
        raise CannotStart(message.decode(errors="replace"))
    return pid


def _become(program: Program, output: int, errors: int, shim: int) -> None:
    """Run in the child: never returns."""
    step = ""
    try:
        os.setsid()
        null = os.open(os.devnull, os.O_RDONLY)
        for descriptor, place in ((null, 0), (output, 1), (output, 2)):
            os.dup2(descriptor, place)
        step = "cannot change user: "
        if program.user is not None:
            _change_user(*program.user)
        # After the change of user, which takes the order to the kernel back (prctl(2)).
        process.die_with_parent()
        if os.getppid() != shim:  # it died before the order to the kernel stood
            os._exit(1)
        step = f'cannot use the working directory "{program.directory}": '
        os.chdir(program.directory)
        step = ""
        os.umask(_UMASK)
        for number in signal.valid_signals():
            if number not in (signal.SIGKILL, signal.SIGSTOP) and signal.getsignal(number) is not None:
                signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        _exec(program)
    except CannotStart as error:
        message = str(error)
    except OSError as error:
        message = f"{step}{(error.strerror or str(error)).lower()}"
    except BaseException as error:  # noqa: BLE001 - the top of a process: nothing may escape the copy of the shim
        message = f"{step}{error!r}"
    try:
        os.write(errors, message.encode(errors="replace")[:4096])
    finally:
        os._exit(127)


def _change_user(uid: int, gid: int, groups: list[int]) -> None:
    # The pipe stays root's otherwise, and `> /dev/stdout` in a script is refused.
    os.fchown(1, uid, -1)
    os.setgroups(groups)
    os.setgid(gid)
    os.setuid(uid)


def _exec(program: Program) -> None:
    """Replace this process, looking along the program's own PATH as execvp(3) does."""
    name = program.argv[0]
    places = [""] if "/" in name else program.environment.get("PATH", os.defpath).split(":")
    argv = [os.fsencode(word) for word in program.argv]
    environment = {os.fsencode(key): os.fsencode(value) for key, value in program.environment.items()}
    worst: OSError | None = None
    for place in places:
        path = os.path.join(place, name) if place else name  # noqa: PTH118 - pathlib takes 8 ms to import
        try:
            os.execve(path, argv, environment)  # noqa: S606 - running what the task says is our purpose
        except FileNotFoundError as error:
            if os.path.exists(path):  # noqa: PTH110
                raise CannotStart(f'exec: "{path}": its interpreter does not exist') from error
        except NotADirectoryError:
            pass
        except OSError as error:
            worst = error
            if error.errno != errno.EACCES:
                break
    if worst is not None:
        raise CannotStart(f'exec: "{name}": {(worst.strerror or str(worst)).lower()}')
    if "/" in name:
        raise CannotStart(f'exec: "{name}": no such file or directory')
    raise CannotStart(f'exec: "{name}": executable file not found in $PATH')


def exit_code(status: int) -> int:
    """Turn a wait status into a container's exit code: 128 + signal when a signal ended it."""
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code
