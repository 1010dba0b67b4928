"""What a runtime is told to run: definition, overrides and ports, with the instance's time scale."""

import pytest
from tests.controlplane.world import container_definition, task, task_definition

from kecs.client.instance import Instance
from kecs.controlplane.specs import task_spec
from kecs.controlplane.start_up import knobs_of
from kecs.ecs.context import Knobs
from kecs.ecs.model import TaskPort
from kecs.runtimes.base import Dependency, HealthCheck, PortSpec


def spec(container, *, time_scale=1.0, environments=None, **members):
    definition = task_definition(containers=[container])
    return task_spec(task(**members), definition, environments or {}, time_scale=time_scale).containers[0]


def test_an_override_of_the_command_leaves_the_entry_point():
    override = {"containerOverrides": [{"name": "web", "command": ["other"], "cpu": 7}]}
    one = spec(container_definition(entryPoint=["sh"]), overrides=override)

    assert (one.entry_point, one.command) == (["sh"], ["other"])
    assert one.definition["cpu"] == 7


def test_an_override_of_another_container_changes_nothing():
    one = spec(container_definition(), overrides={"containerOverrides": [{"name": "db", "command": ["x"]}]})

    assert one.command == ["serve"]


def test_time_scale_multiplies_intervals_and_stop_timeout_only():
    check = {"command": ["CMD", "true"], "interval": 10, "timeout": 4, "retries": 2, "startPeriod": 20}
    container = container_definition(healthCheck=check, stopTimeout=10, startTimeout=60)
    one = spec(container, time_scale=0.1)

    assert one.health_check == HealthCheck(
        command=["CMD", "true"], interval=1.0, timeout=4.0, retries=2, start_period=2.0
    )
    assert (one.stop_timeout, one.start_timeout) == (1.0, 60)


def test_ecs_defaults_hold_where_nothing_is_said():
    one = spec(container_definition(healthCheck={"command": ["CMD", "true"]}))

    assert one.stop_timeout == 30.0
    assert (one.health_check.interval, one.health_check.timeout, one.health_check.retries) == (30.0, 5.0, 3)


def test_a_container_gets_its_own_ports_variables_and_dependencies():
    ports = [
        TaskPort(container="web", container_port=80, name="http", host_port=29999),
        TaskPort(container="db", container_port=5432, host_port=29998),
    ]
    container = container_definition(dependsOn=[{"containerName": "db", "condition": "HEALTHY"}])
    one = spec(container, ports=ports, environments={"web": {"A": "1"}, "db": {"B": "2"}})

    assert one.ports == [PortSpec(container_port=80, name="http", host_port=29999)]
    assert one.depends_on == [Dependency(container="db", condition="HEALTHY")]
    assert one.environment == {"AWS_EXECUTION_ENV": "AWS_ECS_FARGATE", "A": "1"}


def test_a_task_on_ec2_is_told_so():
    assert spec(container_definition(), launch_type="EC2").environment["AWS_EXECUTION_ENV"] == "AWS_ECS_EC2"


def test_a_runtime_that_shows_an_environment_knows_what_to_hide():
    container = container_definition(secrets=[{"name": "PASSWORD", "valueFrom": "db"}])
    one = spec(container, environments={"web": {"PASSWORD": "p", "A": "1"}})

    assert one.secrets == ["PASSWORD"]
    assert one.environment["PASSWORD"] == "p"


def test_where_a_pod_is_and_what_the_whole_task_has_come_from_row_and_definition():
    volumes = [{"name": "data"}]
    definition = task_definition(cpu="512", memory="1024", volumes=volumes, pidMode="task")
    row = task(namespace="ns", pod="web-1", started_by="ecs-svc/1", cpu="512", memory="1024")
    whole = task_spec(row, definition, {}, time_scale=1.0)

    assert (whole.namespace, whole.pod, whole.started_by) == ("ns", "web-1", "ecs-svc/1")
    assert (whole.cpu, whole.memory) == ("512", "1024")
    assert (whole.definition["volumes"], whole.definition["pidMode"]) == (volumes, "task")
    assert "containerDefinitions" not in whole.definition


def test_a_task_whose_definition_says_no_size_has_none_whatever_its_containers_add_up_to():
    whole = task_spec(task(cpu="256", memory="512"), task_definition(), {}, time_scale=1.0)

    assert (whole.cpu, whole.memory) == (None, None)


def test_an_overridden_size_is_the_tasks_size():
    row = task(overrides={"cpu": "256", "memory": "2048"})
    whole = task_spec(row, task_definition(cpu="512", memory="1024"), {}, time_scale=1.0)

    assert (whole.cpu, whole.memory) == ("256", "2048")


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ({}, Knobs()),
        (
            {"healthyAfter": 2.0, "readyTimeout": 3.0, "drain": 4.0, "timeScale": 0.5},
            Knobs(healthy_after=2.0, ready_timeout=3.0, drain=4.0, time_scale=0.5),
        ),
    ],
)
def test_the_instances_knobs_reach_the_rules(written, expected):
    instance = Instance(
        name="default", id="i", region="r", api_port=1, access_key_id="K", directory="/", created_at=1.0,
        knobs=written,
    )  # fmt: skip

    assert knobs_of(instance) == expected
