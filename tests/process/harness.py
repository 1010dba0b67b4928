"""A home of its own for a test, with the `kecs` command and a boto3 client, and a check at the end.

Whatever the test starts carries the home's path in its environment or command, so that what is left
behind is found whatever became of its parents.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError

T = TypeVar("T")
KECS = Path(sys.executable).with_name("kecs")
SERVERS = Path(__file__).parent / "servers"
NETWORK = {"awsvpcConfiguration": {"subnets": ["subnet-1"], "assignPublicIp": "ENABLED"}}
PRIVATE = {"awsvpcConfiguration": {"subnets": ["subnet-1"], "assignPublicIp": "DISABLED"}}


def until(condition: Callable[[], T], what: str, seconds: float = 15.0, every: float = 0.02) -> T:
    """Poll `condition` until it is true; return what it returned. Fails with `what` after `seconds`."""
    deadline = time.monotonic() + seconds
    last: object = None
    while True:
        try:
            if value := condition():
                return value
        except (OSError, AssertionError, BotoCoreError) as error:
            last = error
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds} s: {what} ({last})")
        time.sleep(every)


class Home:
    """One temporary KECS_HOME."""

    def __init__(self, **environment: str) -> None:
        self.path = Path(tempfile.mkdtemp(prefix="kecs-", dir="/tmp"))
        self.environment = {
            "PATH": f"{KECS.parent}:{os.environ['PATH']}",
            "HOME": str(self.path),
            "KECS_HOME": str(self.path),
            "KECS_RUNTIME": "local",
            "LANG": "C.UTF-8",
            **environment,
        }
        self._clients: dict[tuple[str, str | None], Any] = {}

    def run(self, *arguments: str, code: int | None = 0, timeout: float = 60, **options: Any) -> Any:
        """Run `kecs`; check the exit code unless `code` is None; return the completed process."""
        done = subprocess.run(
            [str(KECS), *arguments],
            env=self.environment | options.pop("env", {}),
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
            cwd=options.pop("cwd", self.path),
            **options,
        )
        if code is not None:
            assert done.returncode == code, (
                f"kecs {' '.join(arguments)}: exit {done.returncode}, not {code}\n{done.stdout}{done.stderr}"
            )
        return done

    def json(self, *arguments: str) -> Any:
        """Run `kecs … -o json` and return what it printed."""
        return json.loads(self.run(*arguments, "-o", "json").stdout)

    def start(self, *arguments: str, instance: str = "default", **options: Any) -> None:
        """Start an instance on a port of its own choice."""
        self.run("start", "--instance", instance, "--port", "0", *arguments, **options)

    def aws(self, instance: str = "default", region: str | None = None) -> Any:
        """Return a boto3 ECS client of the instance."""
        if (instance, region) not in self._clients:
            lines = self.run("env", "--instance", instance, "--shell", "sh").stdout.splitlines()
            values = dict(line.removeprefix("export ").split("=", 1) for line in lines if "=" in line)
            values = {name: value.strip("'\"; ") for name, value in values.items()}
            self._clients[instance, region] = boto3.session.Session().client(
                "ecs",
                endpoint_url=values["AWS_ENDPOINT_URL_ECS"],
                region_name=region or values["AWS_REGION"],
                aws_access_key_id=values["AWS_ACCESS_KEY_ID"],
                aws_secret_access_key=values["AWS_SECRET_ACCESS_KEY"],
                config=Config(retries={"total_max_attempts": 1}, connect_timeout=5, read_timeout=30),
            )
        return self._clients[instance, region]

    def register(
        self, family: str = "web", *, instance: str = "default", version: str = "1", **changes: Any
    ) -> str:
        """Register a task definition that runs `servers/web.py`; return its ARN."""
        container: dict[str, Any] = {
            "name": "web",
            "image": "web",
            "command": [sys.executable, str(SERVERS / "web.py")],
            "environment": [
                {"name": "VERSION", "value": version},
                {"name": "KECS_TEST_HOME", "value": str(self.path)},
                *changes.pop("environment", []),
            ],
            "portMappings": [{"containerPort": 80, "name": "http"}],
            "stopTimeout": 5,
        }
        container |= changes.pop("container", {})
        registered = self.aws(instance).register_task_definition(
            family=family,
            networkMode="awsvpc",
            cpu="256",
            memory="512",
            containerDefinitions=[container, *changes.pop("sidecars", [])],
            **changes,
        )
        return str(registered["taskDefinition"]["taskDefinitionArn"])

    def service(self, name: str = "web", *, instance: str = "default", count: int = 2, **changes: Any) -> Any:
        """Create a public service in cluster `default` (or `cluster=`) of `taskDefinition` or `web`."""
        members = {"cluster": "default", "taskDefinition": "web", "networkConfiguration": NETWORK} | changes
        return self.aws(instance).create_service(serviceName=name, desiredCount=count, **members)["service"]

    def stable(self, name: str = "web", *, instance: str = "default", cluster: str = "default") -> None:
        """Wait by botocore's own waiter."""
        self.aws(instance).get_waiter("services_stable").wait(
            cluster=cluster, services=[name], WaiterConfig={"Delay": 1, "MaxAttempts": 40}
        )

    def describe(self, name: str = "web", *, instance: str = "default") -> Any:
        """Return the service as DescribeServices shows it."""
        return self.aws(instance).describe_services(services=[name])["services"][0]

    def rolled(
        self, revision: str, before: set[str], name: str = "web", *, instance: str = "default"
    ) -> bool:
        """Tell whether the deployment of `revision` is COMPLETED and all tasks `before` it are STOPPED."""
        primary = self.describe(name, instance=instance)["deployments"][0]
        if primary["taskDefinition"] != revision or primary["rolloutState"] != "COMPLETED":
            return False
        described = self.aws(instance).describe_tasks(tasks=sorted(before))["tasks"]
        return all(task["lastStatus"] == "STOPPED" for task in described)

    def arns(self, *, instance: str = "default") -> set[str]:
        """Return the ARNs of the tasks that are to run."""
        return {task["taskArn"] for task in self.tasks(instance=instance)}

    def tasks(self, status: str = "RUNNING", *, instance: str = "default", **filters: str) -> list[Any]:
        """Return the tasks of cluster `default` with this desiredStatus, described."""
        aws = self.aws(instance)
        arns = aws.list_tasks(desiredStatus=status, **filters)["taskArns"]
        return aws.describe_tasks(tasks=arns)["tasks"] if arns else []

    def forward(self, *arguments: str, instance: str = "default") -> Any:
        """`kecs port-forward start service …`: return the forward's row."""
        rows = self.json("port-forward", "--instance", instance, "start", *arguments)
        return (rows if isinstance(rows, list) else rows["forwards"])[0]

    def forwards(self, instance: str = "default") -> list[Any]:
        """Return the rows of `kecs port-forward list`."""
        rows = self.json("port-forward", "--instance", instance, "list")
        return list(rows if isinstance(rows, list) else rows["forwards"])

    def pid(self, daemon: str, instance: str = "default") -> int:
        """Return the process id of `agent` or `controlplane`, by its pid file."""
        folder = self.path / "instances" / instance
        name = "port-forwards/agent.pid" if daemon == "agent" else "controlplane.pid"
        return int((folder / name).read_text())

    def kill(self, daemon: str, instance: str = "default") -> int:
        """Kill a daemon with -9; return its pid."""
        pid = self.pid(daemon, instance)
        os.kill(pid, signal.SIGKILL)
        return pid

    def processes(self) -> dict[int, str]:
        """Return every process that carries this home in its environment or command."""
        mark = os.fsencode(self.path)
        found = {}
        for folder in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                command = (folder / "cmdline").read_bytes()
                if mark in command + (folder / "environ").read_bytes() and int(folder.name) != os.getpid():
                    found[int(folder.name)] = command.replace(b"\0", b" ").decode(errors="replace")
        return found

    def close(self) -> None:
        """End what was started and check that nothing is left."""
        if (self.path / "instances").is_dir():
            for folder in list((self.path / "instances").iterdir()):
                self.run("destroy", "--yes", "--instance", folder.name, code=None, timeout=90)
        try:
            until(lambda: not self.processes(), "every process of the test has ended", seconds=5)
        except AssertionError:
            left = self.processes()
            for pid in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            raise AssertionError(f"left behind: {left}") from None
        finally:
            shutil.rmtree(self.path, ignore_errors=True)
