"""Processes of this machine, on Linux and where there is only `ps`."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from tests.runtimes.world import is_alive, python

from kecs.runtimes import portable, process, sockdiag, sweep
from kecs.runtimes.process import Process


@pytest.fixture
def sleeper():
    with subprocess.Popen(["sleep", "600"], env={"PATH": os.environ["PATH"], "MARK": "a b=c"}) as child:
        yield child
        child.kill()


def test_a_process_is_known_by_pid_and_start(sleeper: subprocess.Popen) -> None:
    """Parent, start and end are seen; a zombie is not alive."""
    one = process.process(sleeper.pid)
    assert one is not None
    assert (one.parent, one.zombie) == (os.getpid(), False)
    assert process.is_alive(one.pid, one.start)
    assert process.is_alive(one.pid, one.start + "0") is None
    assert one.pid in [each.pid for each in process.descendants(os.getpid())]
    assert process.variable(one.pid, "MARK") == "a b=c"
    assert process.variable(one.pid, "MAR") is None

    assert process.send_signal(one, signal.SIGKILL)
    os.waitid(os.P_PID, one.pid, os.WEXITED | os.WNOWAIT)
    assert (process.process(one.pid) or one).zombie
    assert process.is_alive(one.pid, one.start) is None
    assert process.reap(one.pid)
    assert process.process(one.pid) is None
    assert not process.reap(one.pid)
    assert not process.send_signal(one, signal.SIGKILL)
    sleeper.returncode = -9


def test_a_reused_pid_is_not_signalled(sleeper: subprocess.Popen) -> None:
    """The process with that pid started at another time: it is another."""
    one = process.process(sleeper.pid)
    assert one is not None
    other = Process(one.pid, one.parent, one.session, one.start + "0")

    assert not process.send_signal(other, signal.SIGKILL)
    assert process.watch_exit(other) is None
    assert is_alive(one.pid)


def test_a_name_with_blanks_and_parentheses_is_read(tmp_path: Path) -> None:
    """proc_pid_stat(5) does not quote it."""
    program = tmp_path / "a) S 1 (b"
    program.symlink_to("/bin/sleep")
    with subprocess.Popen([program, "600"]) as child:
        try:
            assert (process.process(child.pid) or Process(0, 0, 0, "")).parent == os.getpid()
        finally:
            child.kill()


@pytest.mark.parametrize(("family", "host"), [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")])
def test_listeners_are_found_by_netlink_and_by_proc(
    family: int, host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same socket, with its inode; one that is bound and does not listen is not there."""
    with (
        socket.create_server((host, 0), family=family) as listener,
        socket.socket(family, socket.SOCK_STREAM) as bound,
    ):
        bound.bind((host, 0))
        inode = os.fstat(listener.fileno()).st_ino
        expected = (host, listener.getsockname()[1], inode)
        for fails in (False, True):
            if fails:
                monkeypatch.setattr("kecs.runtimes.procfs._dump", _refuse)
            found = [(one.host, one.port, one.inode) for one in process.listeners()]
            assert expected in found
            assert bound.getsockname()[1] not in [port for _, port, _ in found]
        assert process.socket_inodes(os.getpid())[inode] == listener.fileno()
        assert process.holds(os.getpid(), listener.fileno(), inode)
    assert not process.holds(os.getpid(), listener.fileno(), inode)


def _refuse() -> list[sockdiag.Listener]:
    raise PermissionError


def test_many_listeners_fit() -> None:
    """A dump of several datagrams is put together."""
    listeners = [socket.create_server(("127.0.0.1", 0)) for _ in range(600)]
    try:
        found = {one.port for one in sockdiag.listeners()}
        assert {each.getsockname()[1] for each in listeners} <= found
    finally:
        for each in listeners:
            each.close()


def test_subtrees_has_each_process_once_parents_first() -> None:
    """A root below a root is not told twice."""
    everything = [Process(pid, parent, 0, "") for pid, parent in ((4, 3), (3, 2), (2, 1), (9, 1), (1, 0))]
    found = process.subtrees(everything, lambda one: one.pid in (2, 3))
    assert sorted(one.pid for one in found) == [2, 3, 4]


def test_a_sweep_spares_itself_and_all_above_it() -> None:
    """A KECS that was started from within a task does not end itself with it."""
    code = """
import os, subprocess, sys
sys.path[:0] = sys.argv[1:]
from kecs.runtimes import sweep
os.environ["KECS_TASK_ARN"] = "x"
with subprocess.Popen(["sleep", "600"]) as child:
    print([one.pid == child.pid for one in sweep.find(lambda arn: arn == "inner")])
    print([one.pid == child.pid for one in sweep.find(lambda arn: arn == "x")])
    child.kill()
"""
    done = subprocess.run(
        [*python(code), *(path for path in sys.path if path)],
        env={"PATH": os.environ["PATH"], "KECS_TASK_ARN": "inner"},
        capture_output=True,
        text=True,
        check=True,
    )
    # The parent names "inner" and is spared; its child, which names "x", is not spared for being below.
    assert done.stdout.split("\n")[:2] == ["[]", "[True]"]


def test_a_sweep_leaves_those_of_another_name(sleeper: subprocess.Popen) -> None:
    """Only the exact name counts."""
    assert sweep.find(lambda arn: arn == "a") == []


PS = """
    1     0     1 Ss   Mon Nov 23 20:00:00 2026
   10     1    10 S    Mon Nov 23 20:01:00 2026
   11    10    10 Z    Mon Nov 23 20:02:00 2026
"""


def test_ps_is_understood(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is no /proc, `ps` tells pid, parent, group, state and start."""
    asked: list[tuple[str, ...]] = []

    def run(*command: str) -> str:
        asked.append(command)
        if "-E" in command:
            return "sleep 600 PATH=/bin KECS_TASK_ARN=arn:x HOME=/\n"
        if "-p" in command:
            return next((line for line in PS.splitlines() if line.split()[:1] == [command[-1]]), "")
        return PS

    monkeypatch.setattr(portable, "_run", run)
    found = {one.pid: one for one in portable.processes()}
    assert [(one.parent, one.session, one.zombie) for one in found.values()] == [
        (0, 1, False), (1, 10, False), (10, 10, True),
    ]  # fmt: skip
    assert found[10].start == "Mon Nov 23 20:01:00 2026"
    assert portable.variable(10, "KECS_TASK_ARN") == "arn:x"
    assert portable.process(12) is None
    assert portable.watch_exit(Process(12, 1, 12, "")) is None
    assert portable.watch_exit(found[11]) is None
    with pytest.raises(OSError, match="cannot be watched"):
        portable.watch_exit(found[10])


def test_a_signal_goes_to_the_same_process_only_by_ps_too(
    sleeper: subprocess.Popen, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The start is compared there as well; this machine's `ps` speaks the same language."""
    one = portable.process(sleeper.pid)
    assert one is not None
    assert one.parent == os.getpid()
    assert not portable.send_signal(Process(one.pid, 1, 1, "Mon Nov 23 20:00:00 2020"), signal.SIGKILL)
    assert is_alive(one.pid)
    assert portable.send_signal(one, signal.SIGKILL)
    assert sleeper.wait() == -9


def test_a_socket_is_reached_by_a_long_path_elsewhere_too(tmp_path: Path) -> None:
    """By going to its folder, and back."""
    folder = tmp_path / ("x" * 150)
    folder.mkdir()
    before = Path.cwd()
    with socket.socket(socket.AF_UNIX) as listener:
        try:
            os.chdir(folder)
            listener.bind("s")
        finally:
            os.chdir(before)
        listener.listen()
        for platform in (portable, process):
            platform.connect_in(str(folder), "s").close()
            with pytest.raises(FileNotFoundError):
                platform.connect_in(str(folder), "t")
    assert Path.cwd() == before


def test_both_platforms_offer_the_same() -> None:
    """What `process` takes from one it can take from the other."""
    names = set(process.__all__) - {"descendants", "is_alive", "reap", "subtrees", "Listener"}
    assert {name for name in names if not hasattr(portable, name)} == set()
