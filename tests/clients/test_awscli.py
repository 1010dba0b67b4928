"""The aws CLI, unmodified, set up by `kecs env` alone."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from tests.process.harness import KECS, Home

HELLO = Path(__file__).parents[2] / "examples/hello/task-definition.json"
FAILED = 255
"""Exit code of version 1 of the CLI for a service's error; version 2 has 254."""
PUBLIC = "awsvpcConfiguration={subnets=[subnet-1],assignPublicIp=ENABLED}"


@pytest.fixture
def aws():
    """Return a function that runs `aws ecs …` as a shell does after `eval "$(kecs env)"`."""
    home = Home()
    home.start(cwd=HELLO.parents[2])

    def run(*arguments: str, code: int = 0):
        script = f'eval "$({KECS} env 2>/dev/null)"; exec aws ecs "$@"'
        done = subprocess.run(
            ["sh", "-c", script, "aws", *arguments],
            env=home.environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == code, done.stdout + done.stderr
        return json.loads(done.stdout) if code == 0 and done.stdout else done.stderr

    yield run
    home.close()


def test_a_service_from_create_to_wait(aws):
    registered = aws("register-task-definition", "--cli-input-json", f"file://{HELLO}")
    assert registered["taskDefinition"]["revision"] == 1
    aws(
        *("create-service", "--service-name", "web", "--task-definition", "hello"),
        *("--desired-count", "1", "--launch-type", "FARGATE", "--network-configuration", PUBLIC),
    )
    aws("wait", "services-stable", "--services", "web")
    (service,) = aws("describe-services", "--services", "web")["services"]
    assert (service["runningCount"], service["desiredCount"]) == (1, 1)
    refused = aws(
        "describe-services", "--cluster", "none", "--services", "web", code=255
    )  # v1 of the CLI; v2 says 254
    assert "(ClusterNotFoundException) when calling the DescribeServices operation" in refused
    assert "Cluster not found." in refused
