"""The main job, from an empty KECS_HOME to an empty machine: `make demo`.

Every step is done by what a user has: the `kecs` command and boto3. Ends with exit code 0, or at the
first thing that goes wrong with one clear error and exit code 1; either way nothing is left behind.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

ROOT = Path(__file__).resolve().parent.parent
KECS = Path(sys.executable).with_name("kecs")
CLUSTER, SERVICE = "demo", "hello"
NETWORK = {"awsvpcConfiguration": {"subnets": ["subnet-local"], "assignPublicIp": "ENABLED"}}


class DemoError(Exception):
    """Something did not go as it should; the message says what."""


def main() -> int:
    """Run the demo; return the exit code."""
    home = Path(tempfile.mkdtemp(prefix="kecs-demo-"))
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("AWS_", "KECS_"))}
    environment |= {"KECS_HOME": str(home), "KECS_RUNTIME": "local"}
    environment["PATH"] = f"{KECS.parent}{os.pathsep}{environment.get('PATH', os.defpath)}"
    demo = Demo(home, environment)
    began = time.monotonic()
    code = 1
    try:
        demo.run()
        code = 0
    except (DemoError, ClientError, BotoCoreError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
    except KeyboardInterrupt:
        print("error: interrupted", file=sys.stderr)
        code = 130
    finally:
        left = demo.clean_up()
    if left:
        print(f"error: left behind: {left}", file=sys.stderr)
        return code or 1
    if code == 0:
        say(f"nothing is left behind: no process, no file. Done in {time.monotonic() - began:.1f} s")
    return code


class Demo:
    """The steps, in order."""

    def __init__(self, home: Path, environment: dict[str, str]) -> None:
        self.home = home
        self.environment = environment

    def run(self) -> None:
        """Do all of it; raises at the first thing that goes wrong."""
        say(f"start an instance of KECS in {self.home}")
        self.kecs("start", "--port", "0")
        ecs = self.ecs_client()

        say("register the task definition of examples/hello with boto3")
        first = self.register(ecs, version=1)

        say("create a service of two tasks with assignPublicIp: ENABLED")
        ecs.create_cluster(clusterName=CLUSTER)
        ecs.create_service(
            cluster=CLUSTER,
            serviceName=SERVICE,
            taskDefinition=first,
            desiredCount=2,
            launchType="FARGATE",
            networkConfiguration=NETWORK,
        )
        say("wait with botocore's own waiter, services_stable")
        wait_until_stable(ecs)

        say("forward a port of this machine to it")
        started = json.loads(
            self.kecs("port-forward", "start", "service", f"{CLUSTER}/{SERVICE}", "-o", "json", quiet=True)
        )
        rows = started if isinstance(started, list) else started["forwards"]
        url = f"http://127.0.0.1:{rows[0]['localPort']}/"
        print(f"    {url} -> {CLUSTER}/{SERVICE}:80")
        print(f"    {expect(fetch(url), 'version 1')}")

        say("update the service to a second revision, with requests going on the whole time")
        second = self.register(ecs, version=2)
        with requests_all_the_time(url) as tally:
            ecs.update_service(cluster=CLUSTER, service=SERVICE, taskDefinition=second)
            wait_until_stable(ecs)
        print(f"    {tally.total} requests, {len(tally.failed)} failed")
        if tally.failed:
            raise DemoError(f"requests failed during the update: {tally.failed[0]}")
        if not tally.total:
            raise DemoError("no request was made during the update")
        print(f"    {expect(fetch(url), 'version 2')}")

        self.kill_the_agent(url)

        say("list the forwards, then stop them")
        print(indent(self.kecs("port-forward", "list", quiet=True)))
        self.kecs("port-forward", "stop", "--all")
        say("stop the instance and delete it")
        self.kecs("stop")
        self.kecs("destroy", "--yes")

    def register(self, ecs: Any, version: int) -> str:
        """Register the example's task definition as `version`; return the revision's ARN."""
        definition = json.loads((ROOT / "examples/hello/task-definition.json").read_text())
        definition["containerDefinitions"][0]["environment"] = [{"name": "VERSION", "value": str(version)}]
        registered = ecs.register_task_definition(**definition)["taskDefinition"]
        return str(registered["taskDefinitionArn"])

    def kill_the_agent(self, url: str) -> None:
        """Kill the agent with -9 and show that the same port answers again."""
        pid_file = self.home / "instances/default/port-forwards/agent.pid"
        pid = int(pid_file.read_text())
        say(f"kill the agent (process {pid}) with -9: the same port answers again")
        os.kill(pid, signal.SIGKILL)
        killed = time.monotonic()
        while True:
            try:
                page = fetch(url)
            except OSError as error:
                if time.monotonic() - killed > 10:
                    raise DemoError(f"{url} did not come back: {error}") from error
                time.sleep(0.02)
            else:
                break
        print(f"    after {time.monotonic() - killed:.2f} s: {expect(page, 'version 2')}")

    def kecs(self, *arguments: str, quiet: bool = False) -> str:
        """Run a `kecs` command, show it and its output; return what it printed on stdout."""
        print(f"    $ kecs {' '.join(arguments)}", flush=True)
        done = subprocess.run(
            [str(KECS), *arguments],
            cwd=ROOT,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        if done.returncode:
            raise DemoError(f"`kecs {' '.join(arguments)}` ended with {done.returncode}:\n{done.stderr}")
        shown = "" if quiet else (done.stderr + done.stdout)
        if shown.strip():
            print(indent(shown), flush=True)
        return done.stdout

    def ecs_client(self) -> Any:
        """Return a boto3 client set up by what `kecs env` prints."""
        for line in self.kecs("env", "--shell", "sh", quiet=True).splitlines():
            name, _, value = line.removeprefix("export ").partition("=")
            if name.startswith("AWS_"):
                os.environ[name] = value.strip("'\"; ")
        return boto3.client("ecs", config=Config(retries={"mode": "standard", "total_max_attempts": 2}))

    def clean_up(self) -> str:
        """Remove what is there; return what could not be removed, or an empty string."""
        if (self.home / "instances").exists():
            subprocess.run(
                [str(KECS), "destroy", "--yes"],
                env=self.environment,
                capture_output=True,
                timeout=90,
                check=False,
            )
        left = [f"process {pid}" for pid in self.processes()]
        if (self.home / "instances").exists() and any((self.home / "instances").iterdir()):
            left.append(str(self.home))
        else:
            shutil.rmtree(self.home)
        return ", ".join(left)

    def processes(self) -> list[int]:
        """Return the processes that have this demo's KECS_HOME in their command or environment."""
        mark = os.fsencode(self.home)
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                text = (folder / "cmdline").read_bytes() + (folder / "environ").read_bytes()
            except OSError:
                continue
            if mark in text and int(folder.name) != os.getpid():
                found.append(int(folder.name))
        return found


class Tally:
    """Requests that were made, and those that failed."""

    def __init__(self) -> None:
        self.total = 0
        self.failed: list[str] = []


@contextmanager
def requests_all_the_time(url: str) -> Iterator[Tally]:
    """Request `url` over and over, a new connection each time, while the block runs."""
    tally, stop = Tally(), threading.Event()

    def work() -> None:
        while not stop.is_set():
            try:
                fetch(url)
            except OSError as error:
                tally.failed.append(str(error))
            tally.total += 1
            stop.wait(0.005)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield tally
    finally:
        stop.set()
        thread.join()


def wait_until_stable(ecs: Any) -> None:
    """Wait with botocore's waiter; its own delay of 15 s is for the cloud."""
    ecs.get_waiter("services_stable").wait(
        cluster=CLUSTER, services=[SERVICE], WaiterConfig={"Delay": 1, "MaxAttempts": 25}
    )


def fetch(url: str) -> str:
    """Return the page at `url`; raises OSError."""
    with urllib.request.urlopen(url, timeout=10) as answer:
        return str(answer.read().decode()).strip()


def expect(page: str, part: str) -> str:
    """Return `page` when it contains `part`."""
    if part not in page:
        raise DemoError(f"the page should say `{part}` but says `{page}`")
    return page


def say(text: str) -> None:
    """Announce a step."""
    print(f"==> {text}", flush=True)


def indent(text: str) -> str:
    """Indent each line by four."""
    return "\n".join(f"    {line}" for line in text.rstrip().splitlines())


if __name__ == "__main__":
    sys.exit(main())
