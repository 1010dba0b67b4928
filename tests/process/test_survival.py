"""Everything is killed with -9 at some time: what can come back does, and nothing is lost or doubled."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
from tests.process.harness import Home, until
from tests.process.load import Load


def answers(port: int) -> bool:
    """Tell whether a request through the forward is answered."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5) as answer:
        return answer.status == 200


def web_with_forward(home: Home, count: int = 2) -> int:
    """Start an instance with a service and a forward to it; return the local port."""
    home.start()
    home.register()
    home.service(count=count)
    home.stable()
    port = home.forward("service", "default/web")["localPort"]
    until(lambda: answers(port), "the forward serves")
    return port


def servers(home: Home) -> list[int]:
    """Return the processes of the tasks' web server."""
    return [pid for pid, command in home.processes().items() if "web.py" in command and "shim" not in command]


def shims(home: Home) -> list[int]:
    return [pid for pid, command in home.processes().items() if "shim" in command]


def test_the_agent_comes_back_by_itself_on_the_same_port(home: Home):
    port = web_with_forward(home)
    before = home.arns()
    for _ in range(2):
        home.kill("agent")
        until(lambda: answers(port), "the port answers again", seconds=2)
    assert home.forwards()[0]["localPort"] == port
    assert home.arns() == before


def test_the_control_plane_comes_back_and_adopts_its_tasks(home: Home):
    port = web_with_forward(home)
    before, processes = home.arns(), sorted(servers(home))
    killed = home.kill("controlplane")
    assert answers(port), "the agent serves on while the control plane is away"
    until(lambda: home.pid("controlplane") != killed and home.describe(), "the API answers", seconds=2)
    assert home.arns() == before
    assert sorted(servers(home)) == processes
    assert home.describe()["runningCount"] == 2


def test_an_agent_with_many_connections_brings_the_control_plane_back(home: Home):
    """Its descriptors go far beyond 1,024, where some system calls end."""
    port = web_with_forward(home)
    with Load(port, rate=20, idle=700) as load:
        until(lambda: load.idle_open == 700, "the idle connections are open", seconds=30)
        killed = home.kill("controlplane")
        until(lambda: home.pid("controlplane") != killed and home.describe(), "the API answers", seconds=3)
    assert load.tally.failed == []
    assert load.idle_opened == 700, "no connection was lost"


def test_both_daemons_come_back_with_the_next_command(home: Home):
    port = web_with_forward(home)
    before, processes = home.arns(), sorted(servers(home))
    os.kill(home.pid("agent"), signal.SIGSTOP)
    agent = home.pid("agent")
    home.kill("controlplane")
    os.kill(agent, signal.SIGKILL)
    assert sorted(servers(home)) == processes, "tasks with a live shim go on"
    home.run("ps")
    until(lambda: answers(port), "the forward serves", seconds=2)
    assert home.arns() == before
    assert sorted(servers(home)) == processes


def test_a_killed_task_is_replaced_and_the_forward_goes_on(home: Home):
    port = web_with_forward(home)
    before = home.arns()
    os.kill(servers(home)[0], signal.SIGKILL)
    until(lambda: answers(port), "the other task serves", seconds=2)
    until(lambda: len(home.arns() - before) == 1, "a new task", seconds=5)
    home.stable()
    stopped = home.tasks("STOPPED")
    assert [task["stopCode"] for task in stopped] == ["EssentialContainerExited"]
    assert stopped[0]["containers"][0]["exitCode"] == 137


def test_a_killed_shim_leaves_no_orphan_and_its_task_is_replaced(home: Home):
    port = web_with_forward(home)
    before = home.arns()
    os.kill(shims(home)[0], signal.SIGKILL)
    until(lambda: len(servers(home)) == 2 and len(home.arns()) == 2 and home.arns() != before, "replaced")
    home.stable()
    assert answers(port)
    assert len(servers(home)) == 2


def test_stop_and_start_bring_services_and_forwards_back_on_the_same_ports(home: Home):
    port = web_with_forward(home)
    endpoint = home.aws().meta.endpoint_url
    home.run("stop")
    assert home.processes() == {}
    home.run("start")
    until(lambda: answers(port), "the forward serves", seconds=10)
    assert home.aws().meta.endpoint_url == endpoint
    assert home.describe()["desiredCount"] == 2


def test_stop_after_a_kill_of_both_daemons_leaves_nothing(home: Home):
    web_with_forward(home)
    agent = home.pid("agent")
    os.kill(agent, signal.SIGSTOP)
    home.kill("controlplane")
    os.kill(agent, signal.SIGKILL)
    assert servers(home)
    home.run("stop")
    assert home.processes() == {}


def test_a_grandchild_that_made_itself_a_daemon_does_not_survive_stop(home: Home):
    home.start()
    code = (
        "import os,sys,time\n"
        "if os.fork():\n time.sleep(600)\n"
        "os.setsid()\n"
        "if os.fork(): os._exit(0)\n"
        "os.environ.clear(); os.chdir('/')\n"
        f"os.execve(sys.executable, ['{home.path}/daemon', '-c', 'import time; time.sleep(600)'], {{}})\n"
    )
    arn = home.register("daemon", container={"command": [sys.executable, "-c", code], "portMappings": []})
    home.aws().run_task(
        taskDefinition=arn, networkConfiguration={"awsvpcConfiguration": {"subnets": ["subnet-1"]}}
    )
    until(lambda: any("/daemon -c" in c for c in home.processes().values()), "the daemon runs")
    home.run("stop")
    assert home.processes() == {}


def test_the_loss_of_every_process_with_another_boot_id(home: Home):
    """As after a crash of the machine: pids mean nothing any more; all is back on the same ports."""
    port = web_with_forward(home)
    deployments = [d["id"] for d in home.describe()["deployments"]]
    for pid in home.processes():
        os.kill(pid, signal.SIGSTOP)
    for pid in home.processes():
        os.kill(pid, signal.SIGKILL)
    until(lambda: not home.processes(), "all are gone")
    pretend_reboot(home.path / "instances/default/tasks")
    home.run("start")
    until(lambda: answers(port), "the forward serves", seconds=10)
    home.stable()
    assert home.forwards()[0]["localPort"] == port
    assert [d["id"] for d in home.describe()["deployments"]] == deployments
    assert len(servers(home)) == 2


def pretend_reboot(tasks: Path) -> None:
    """Write another boot id into what the shims left."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    for file in tasks.glob("*/state.json"):
        text = file.read_text()
        assert boot in text
        file.write_text(text.replace(boot, "00000000-0000-0000-0000-000000000000"))


@pytest.mark.timeout(180)
def test_random_kills_under_load_lose_nothing_that_was_confirmed(home: Home):
    """Agent, control plane, shim and task die at random; services, tasks and forwards converge."""
    port = web_with_forward(home, count=3)
    dice = random.Random(5)
    victims = ["agent", "controlplane", "shim", "task"] * 3
    dice.shuffle(victims)
    excused: list[tuple[float, float]] = []
    strikes: list[tuple[float, str]] = []
    with Load(port, rate=200, idle=1000) as load:
        until(lambda: load.idle_open == 1000, "the idle connections are open", seconds=30)
        for number, victim in enumerate(victims):
            if number % 3 == 1:
                until(lambda: home.describe(), "the API answers", seconds=5)
                revision = home.register(version=str(number))
                home.aws().update_service(service="web", taskDefinition=revision)
            time.sleep(dice.uniform(0.1, 0.9))
            struck = time.monotonic()
            strikes.append((struck, victim))
            strike(home, victim, dice)
            until(lambda: answers(port), f"the port answers after the death of the {victim}", seconds=2)
            if victim != "controlplane":
                excused.append((struck, time.monotonic() + 0.2))
        until(lambda: home.describe()["status"] == "ACTIVE", "the API answers")
        home.stable()
    assert home.describe()["taskDefinition"] == revision, "the last confirmed update stands"
    until(lambda: len(servers(home)) == 3, "three servers, neither lost nor doubled")
    assert len(home.arns()) == 3
    rows = home.forwards()
    assert [(row["localPort"], row["state"]) for row in rows] == [(port, "ACTIVE")]
    unexcused = [
        (why, [f"{victim} {began - at:+.3f}..{ended - at:+.3f} s" for at, victim in strikes])
        for (began, ended), why in zip(load.tally.spans, load.tally.failed, strict=True)
        if not any(began <= to and ended >= since for since, to in excused)
    ]
    assert not unexcused, "only requests in flight at the death of an agent, shim or task may fail"
    assert load.tally.total > 300


def strike(home: Home, victim: str, dice: random.Random) -> None:
    """Kill one process of this kind with -9, as long as there is one."""
    if victim in ("agent", "controlplane"):
        until(lambda: home.pid(victim) in home.processes(), f"{victim} is there", seconds=5)
        home.kill(victim)
        return
    found = until(lambda: shims(home) if victim == "shim" else servers(home), f"a {victim}")
    os.kill(dice.choice(found), signal.SIGKILL)


def test_no_process_that_is_not_ours_is_killed(home: Home):
    """A state file that names a stranger's pid harms nobody."""
    home.start()
    home.register()
    home.service(count=1)
    home.stable()
    with subprocess.Popen(["sleep", "120"]) as stranger:
        for pid in home.processes():
            os.kill(pid, signal.SIGSTOP)
        for pid in home.processes():
            os.kill(pid, signal.SIGKILL)
        until(lambda: not home.processes(), "all are gone")
        for file in (home.path / "instances/default/tasks").glob("*/state.json"):
            state = replace_pids(json.loads(file.read_text()), stranger.pid)
            file.write_text(json.dumps(state))
        home.run("start")
        home.stable()
        home.run("stop")
        assert stranger.poll() is None
        stranger.kill()


def replace_pids(value, pid: int):
    """Replace every member named like a pid, whatever the depth."""
    if isinstance(value, dict):
        return {
            k: pid if k == "pid" or k.endswith("_pid") else replace_pids(v, pid) for k, v in value.items()
        }
    if isinstance(value, list):
        return [replace_pids(one, pid) for one in value]
    return value
