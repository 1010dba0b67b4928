"""Running a program: what is heard, its limits, its end, what it may not be told or leave, what is hidden."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import pytest

from kecs.errors import ExitCode, KecsError
from kecs.k3d.run import Ended, LogLine, TookTooLong, log_line, redacted, run
from kecs.k3d.tools import Tools


@pytest.fixture
def program(tmp_path):
    """Return a maker of tools whose `k3d` is the Python code it is given."""

    def make(code: str) -> Tools:
        path = tmp_path / "k3d"
        path.write_text(f"#!{sys.executable} -IS\nimport os, signal, sys, time\n{code}")
        path.chmod(0o755)
        return Tools(path, path, {"PATH": "/nowhere", "SECRET": "1"})

    return make


def wait_gone(pid: int) -> None:
    end = time.monotonic() + 10
    while time.monotonic() < end:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return
        except OSError:
            return
        time.sleep(0.01)
    raise AssertionError(f"{pid} still runs")


def wait_for_text(path: Path) -> str:
    end = time.monotonic() + 10
    while time.monotonic() < end:
        if path.exists() and (text := path.read_text()).endswith("\n"):
            return text
        time.sleep(0.01)
    raise AssertionError(f"{path} was not written")


def test_all_is_heard(program):
    tools = program(
        """
print('time="2026-11-23T14:28:15Z" level=info msg="Prep: Network"')
print('plain')
print('time="2026-11-23T14:28:15Z" level=warning msg="name \\\\"x\\\\" a\\\\nb"', file=sys.stderr)
print('time="2026-11-23T14:28:15Z" level=fatal msg="it failed"', file=sys.stderr, end="")
sys.exit(3)
"""
    )
    notes: list[str] = []
    said = run(tools, ("x",), limit=20, note=notes.append)
    assert said.code == 3
    assert said.stdout.splitlines()[1] == "plain"
    assert said.messages == (
        LogLine("info", "Prep: Network"),
        LogLine("warning", 'name "x" a b'),
        LogLine("fatal", "it failed"),
    )
    assert said.complaints == ['name "x" a b', "it failed"]
    assert said.words == "it failed"
    assert notes == ["Prep: Network"]
    assert said.seconds > 0


def test_much_is_heard_whole(program):
    tools = program("sys.stdout.write('x' * 3_000_000); sys.stderr.write('y' * 200_000)")
    said = run(tools, (), limit=30)
    assert (len(said.stdout), len(said.stderr)) == (3_000_000, 200_000)


def test_progress_is_heard_while_it_runs(program, tmp_path):
    tools = program(
        f"""
print('time="t" level=info msg="one"', flush=True)
while not os.path.exists({str(tmp_path / "heard")!r}): time.sleep(0.01)
"""
    )
    run(tools, (), limit=20, note=lambda text: (tmp_path / "heard").write_text(text))
    assert (tmp_path / "heard").read_text() == "one"


def test_its_environment_is_the_one_it_was_given(program):
    tools = program("print(sorted(os.environ)); print(os.getcwd()); print(sys.stdin.read() == '')")
    said = run(tools, (), limit=20)
    names = {"KUBECONFIG", "LC_CTYPE", "LOG_COLORS", "PATH", "SECRET", "TMPDIR"}
    lines = said.stdout.splitlines()
    assert set(eval(lines[0])) <= names
    assert lines[1:] == ["/", "True"]


def test_its_temporary_folder_is_its_own_and_removed(program):
    tools = program(
        """
folder = os.environ["TMPDIR"]
open(os.path.join(folder, "k3d-hostsfile-1"), "w").close()
print(folder, oct(os.stat(folder).st_mode & 0o777), os.path.exists(os.environ["KUBECONFIG"]))
"""
    )
    folder, mode, exists = run(tools, (), limit=20).stdout.split()
    assert (mode, exists) == ("0o700", "False")
    assert not Path(folder).exists()
    assert run(tools, (), limit=20).stdout.split()[0] != folder


STARTER = """
import os, sys
from pathlib import Path
from kecs.k3d.run import run
from kecs.k3d.tools import Tools
run(Tools(Path(sys.argv[1]), Path("docker"), {"PATH": os.defpath}), (), limit=60)
"""


def test_a_folder_whose_processes_were_killed_is_removed_by_the_next_call(program, tmp_path, monkeypatch):
    parent, told, over = tmp_path / "tmp", tmp_path / "told", tmp_path / "over"
    parent.mkdir()
    tools = program(
        f"""
with open({str(told)!r}, "w") as file:
    file.write(f"{{os.getpid()}} {{os.environ['TMPDIR']}}\\n")
end = time.monotonic() + 30
while not os.path.exists({str(over)!r}) and time.monotonic() < end: time.sleep(0.01)
"""
    )
    words = [sys.executable, "-c", STARTER, str(tools.k3d)]
    with subprocess.Popen(words, env={**os.environ, "TMPDIR": str(parent)}) as starter:
        try:
            pid, path = wait_for_text(told).split()
        finally:
            starter.kill()
    folder = Path(path)
    assert folder.parent == parent
    quick = program("pass")
    monkeypatch.setattr(tempfile, "tempdir", str(parent))

    run(quick, (), limit=20)
    assert folder.exists(), "it is new: its owner may not have locked it yet"
    long_ago = time.time() - 100
    os.utime(folder, (long_ago, long_ago))
    run(quick, (), limit=20)
    assert folder.exists(), "the program goes on, as an orphan"
    over.touch()
    wait_gone(int(pid))
    run(quick, (), limit=20)
    assert list(parent.iterdir()) == []


def test_a_limit_ends_the_program_and_its_children(program, tmp_path):
    tools = program(
        f"""
signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = os.fork()
if child:
    open({str(tmp_path / "pids")!r}, "w").write(f"{{os.getpid()}} {{child}}\\n")
print('time="t" level=info msg="Starting servers..."', flush=True)
time.sleep(600)
"""
    )
    begin = time.monotonic()
    with pytest.raises(TookTooLong) as caught:
        run(tools, ("cluster", "create", "x", "--token=abc"), limit=0.6)
    assert time.monotonic() - begin < 8
    assert caught.value.exit_code == ExitCode.UNREACHABLE
    assert caught.value.message == (
        "`k3d cluster create x …` did not end within 0.6 s and was ended;"
        " the last it said: Starting servers..."
    )
    for pid in wait_for_text(tmp_path / "pids").split():
        wait_gone(int(pid))


def test_ctrl_c_ends_the_program(program, tmp_path):
    tools = program(f"open({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid()) + '\\n'); time.sleep(600)")

    def interrupt():
        wait_for_text(tmp_path / "pid")
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        run(tools, (), limit=60)
    thread.join()
    wait_gone(int((tmp_path / "pid").read_text()))


def test_ctrl_c_while_it_is_being_started_ends_the_program(program, tmp_path, monkeypatch):
    tools = program(f"open({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid()) + '\\n'); time.sleep(600)")
    popen = subprocess.Popen

    def interrupted(*given, **options):
        started = popen(*given, **options)
        wait_for_text(tmp_path / "pid")
        os.kill(os.getpid(), signal.SIGINT)
        return started

    monkeypatch.setattr(subprocess, "Popen", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(tools, (), limit=60)
    wait_gone(int((tmp_path / "pid").read_text()))


def test_it_does_not_hear_the_terminals_ctrl_c(program):
    tools = program("print(os.getsid(0) == os.getpid())")
    assert run(tools, (), limit=20).stdout == "True\n"


def test_another_thread_ends_it(program, tmp_path):
    tools = program(f"open({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid()) + '\\n'); time.sleep(600)")

    def end():
        wait_for_text(tmp_path / "pid")
        tools.ended.set()

    thread = threading.Thread(target=end)
    thread.start()
    with pytest.raises(Ended):
        run(tools, ("image", "import"), limit=60)
    thread.join()
    wait_gone(int((tmp_path / "pid").read_text()))
    with pytest.raises(Ended):
        run(tools, ("version",), limit=60)


def test_it_inherits_only_what_it_is_to_keep(program, tmp_path):
    with (tmp_path / "kept").open("w") as kept, (tmp_path / "other").open("w") as other:
        os.set_inheritable(other.fileno(), True)
        tools = program(
            "import errno\n"
            "for each in map(int, sys.argv[1:]):\n"
            "    try: os.fstat(each); print('open')\n"
            "    except OSError: print('closed')"
        )
        said = run(tools, (str(kept.fileno()), str(other.fileno())), limit=20, keep=[kept.fileno()])
    assert said.stdout.split() == ["open", "closed"]


def test_a_program_that_is_killed(program):
    said = run(program("os.kill(os.getpid(), signal.SIGKILL)"), (), limit=20)
    assert said.code == -signal.SIGKILL
    assert said.words == "exit code -9"


def test_a_program_that_is_not_there(tmp_path):
    tools = Tools(tmp_path / "k3d", tmp_path / "docker", {})
    with pytest.raises(KecsError, match="docker` cannot be run: No such file or directory"):
        run(tools, ("ps",), program="docker", limit=5)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ('time="t" level=info msg="a"', LogLine("info", "a")),
        ('time="t" level=error msg="say \\"hi\\" \\\\ end" x=1', LogLine("error", 'say "hi" \\ end')),
        ("INFO[0000] Prep: Network", None),
        ("export KUBECONFIG=$(k3d kubeconfig write x)", None),
        ("", None),
    ],
)
def test_lines_of_the_log(line, expected):
    assert log_line(line) == expected


@pytest.mark.parametrize(
    "text",
    [
        "K3S_TOKEN=HIDDEN",
        "env [K3S_TOKEN=HIDDEN PATH=/bin]",
        'K3S_TOKEN=HIDDEN","PATH=/bin',
        '"k3d.cluster.token":"HIDDEN","k3d.role":"server"',
        "map[k3d.cluster.token:HIDDEN k3d.role:server]",
        "k3d.cluster.token=HIDDEN",
        "--token HIDDEN --cluster-init",
        "--token=HIDDEN@server:*",
        "client-key-data: HIDDEN",
        'certificate-authority-data: "HIDDEN"',
        '{"client-certificate-data":"HIDDEN"}',
        "    token: HIDDEN",
        '"token":"HIDDEN"',
        "-----BEGIN RSA PRIVATE KEY-----\nHIDDEN\n-----END RSA PRIVATE KEY-----",
        "-----BEGIN EC PRIVATE KEY----- HIDDEN",
        "K3S_AGENT_TOKEN=HIDDEN",
        "--agent-token=HIDDEN",
        "Authorization: Bearer HIDDEN",
        "K10HIDDEN::server:HIDDEN",
    ],
)
def test_secrets_are_hidden(text):
    assert "HIDDEN" not in redacted(f"before {text}")
    assert redacted(f"before {text}").startswith("before ")


def test_nothing_else_is_hidden():
    text = "Failed to start server k3d-x-server-0: Bind for 127.0.0.1:30010 failed: port is already allocated"
    assert redacted(text) == text
