"""A temporary home with one instance of KECS, for the benchmarks that need one."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import boto3

from kecs.paths import InstancePaths

KECS = str(Path(sys.executable).with_name("kecs"))
NETWORK = {"awsvpcConfiguration": {"subnets": ["subnet-1"], "assignPublicIp": "ENABLED"}}


class Bench:
    """A temporary home with one instance."""

    def __init__(self) -> None:
        self.home = Path(tempfile.mkdtemp(prefix="kecs-bench-", dir="/tmp"))
        self.environment = {k: v for k, v in os.environ.items() if not k.startswith(("AWS_", "KECS_"))}
        self.environment |= {"KECS_HOME": str(self.home), "KECS_RUNTIME": "local"}
        self.paths = InstancePaths(self.home, "default")

    def kecs(self, *arguments: str) -> str:
        """Run `kecs`; it must succeed. Raises RuntimeError with what it said."""
        done = subprocess.run(
            [KECS, *arguments], env=self.environment, check=False, capture_output=True, text=True, timeout=180
        )
        if done.returncode:
            raise RuntimeError(f"kecs {' '.join(arguments)}: exit {done.returncode}\n{done.stderr}")
        return done.stdout

    def ecs(self) -> Any:
        """Return a boto3 client of the instance."""
        values = dict(
            line.removeprefix("export ").split("=", 1)
            for line in self.kecs("env", "--shell", "sh").splitlines()
            if "=" in line
        )
        return boto3.session.Session().client(
            "ecs",
            endpoint_url=values["AWS_ENDPOINT_URL_ECS"].strip("'\"; "),
            region_name="us-east-1",
            aws_access_key_id="test",
            aws_secret_access_key="test",
        )

    def pid(self, pid_file: Path) -> int:
        """Return the process id that `pid_file` holds."""
        return int(pid_file.read_text())

    def memory(self, pid_file: Path) -> float:
        """Return the resident megabytes of the process whose pid `pid_file` holds."""
        status = Path(f"/proc/{self.pid(pid_file)}/status").read_text()
        return int(status.partition("VmRSS:")[2].split()[0]) / 1024

    def close(self) -> None:
        """End what was started."""
        subprocess.run(
            [KECS, "destroy", "--yes"],
            env=self.environment,
            check=False,
            capture_output=True,
            timeout=180,
        )
        shutil.rmtree(self.home, ignore_errors=True)
