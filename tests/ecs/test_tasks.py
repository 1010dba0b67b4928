import msgspec
import pytest

from kecs.ecs import clusters, lifecycle, services, task_definitions, tasks
from kecs.ecs.errors import (
    ClientException,
    ClusterNotFoundException,
    ConflictException,
    InvalidParameterException,
    PlatformTaskDefinitionIncompatibilityException,
    PlatformUnknownException,
    ServiceNotFoundException,
)
from kecs.ecs.model import ClientToken, Container, Task, TaskPort

from .conftest import register, register_bridge
from .shapes import REGION

PREFIX = "arn:aws:ecs:us-east-1:123456789012:"
NETWORK = {"awsvpcConfiguration": {"subnets": ["subnet-1"]}}
PUBLIC = {"awsvpcConfiguration": {"subnets": ["subnet-1"], "assignPublicIp": "ENABLED"}}


def run(ecs, definition="web", **params):
    if definition.startswith("web"):
        params.setdefault("networkConfiguration", NETWORK)
    return ecs.call(tasks.run_task, taskDefinition=definition, **params)


def run_one(ecs, definition="web", **params):
    answer = run(ecs, definition, **params)
    assert answer["failures"] == []
    [task] = answer["tasks"]
    return task


def row(ecs, task):
    return ecs.state.get(Task, REGION, "default", task["taskArn"].rpartition("/")[2])


def change(ecs, task, **members):
    """Change a task's row as the control plane would."""
    ecs.write(lambda tx: tx.put(msgspec.structs.replace(row(ecs, task), **members)))


def described(ecs, task, **params):
    [found] = ecs.call(tasks.describe_tasks, tasks=[task["taskArn"]], **params)["tasks"]
    return found


def test_a_fargate_task_looks_as_recorded_from_aws(ecs):
    task = run_one(ecs, launchType="FARGATE")

    assert task == {
        "taskArn": PREFIX + "task/default/00000000000000000000000000000001",
        "clusterArn": PREFIX + "cluster/default",
        "taskDefinitionArn": PREFIX + "task-definition/web:1",
        "group": "family:web",
        "lastStatus": "PROVISIONING",
        "desiredStatus": "RUNNING",
        "healthStatus": "UNKNOWN",
        "availabilityZone": "us-east-1a",
        "attachments": [
            {
                "id": "00000000-0000-0000-0000-000000000003",
                "type": "ElasticNetworkInterface",
                "status": "PRECREATED",
                "details": [{"name": "subnetId", "value": "subnet-1"}],
            }
        ],
        "attributes": [{"name": "ecs.cpu-architecture", "value": "x86_64"}],
        "containers": [
            {
                "containerArn": PREFIX + "container/default/00000000000000000000000000000001/"
                "00000000-0000-0000-0000-000000000002",
                "taskArn": PREFIX + "task/default/00000000000000000000000000000001",
                "name": "web",
                "image": "web:1",
                "lastStatus": "PENDING",
                "healthStatus": "UNKNOWN",
                "networkBindings": [],
                "networkInterfaces": [],
                "managedAgents": [],
                "gpuIds": [],
                "cpu": "0",
            }
        ],
        "overrides": {"containerOverrides": [{"name": "web"}], "inferenceAcceleratorOverrides": []},
        "inferenceAccelerators": [],
        "enableExecuteCommand": False,
        "version": 1,
        "createdAt": 1700000000.0,
        "tags": [],
        "launchType": "FARGATE",
        "platformVersion": "1.4.0",
        "platformFamily": "Linux",
        "cpu": "256",
        "memory": "512",
        "ephemeralStorage": {"sizeInGiB": 20},
        "fargateEphemeralStorage": {"sizeInGiB": 20},
    }


def test_a_task_on_ec2_has_no_platform_and_the_size_of_its_containers(ecs):
    task = run_one(ecs, "bridge")

    assert (task["launchType"], task["cpu"], task["memory"]) == ("EC2", "10", "64")
    assert not {"platformVersion", "platformFamily", "ephemeralStorage"} & set(task)
    assert task["attachments"] == []


def test_the_row_has_ports_for_kecs_to_choose(ecs):
    public = row(ecs, run_one(ecs, networkConfiguration=PUBLIC))
    fixed = register_bridge(ecs, "fixed", 8081)["taskDefinitionArn"]
    host = register_bridge(ecs, "host", mode="host")["taskDefinitionArn"]

    assert public.ports == [TaskPort(container="web", container_port=80, name="http")]
    assert (public.public, public.launch_type) == (True, "FARGATE")
    assert row(ecs, run_one(ecs, "bridge")).ports[0].host_port == 0
    assert row(ecs, run_one(ecs, fixed)).ports[0].host_port == 8081
    assert row(ecs, run_one(ecs, host)).ports[0].host_port == 8080


def test_a_range_of_ports_is_a_port_each(ecs):
    container = {"name": "web", "image": "x", "portMappings": [{"containerPortRange": "80-82"}]}
    register(ecs, "web-range", [container])

    ports = row(ecs, run_one(ecs, "web-range")).ports

    assert [(port.container_port, port.host_port, port.name) for port in ports] == [
        (80, 0, None),
        (81, 0, None),
        (82, 0, None),
    ]


def test_host_ports_are_shown_once_the_task_runs_and_never_in_awsvpc(ecs):
    bridge, awsvpc = run_one(ecs, "bridge"), run_one(ecs)
    for task in (bridge, awsvpc):
        port = msgspec.structs.replace(row(ecs, task).ports[0], host_port=29999)
        change(ecs, task, ports=[port], last_status="ACTIVATING")
        assert described(ecs, task)["containers"][0]["networkBindings"] == []
        change(ecs, task, last_status="RUNNING")

    assert described(ecs, bridge)["containers"][0]["networkBindings"] == [
        {"bindIP": "0.0.0.0", "containerPort": 80, "hostPort": 29999, "protocol": "tcp"}
    ]
    assert described(ecs, awsvpc)["containers"][0]["networkBindings"] == []


def test_a_running_task_shows_what_was_seen_of_it(ecs):
    task = run_one(ecs)
    seen = msgspec.structs.replace(
        row(ecs, task).containers[0], last_status="STOPPED", exit_code=3, reason="why", runtime_id="77"
    )
    change(
        ecs, task, containers=[seen], last_status="STOPPED", desired_status="STOPPED", connectivity_at=1.5,
        started_at=2.0004, stopped_at=3.0, stop_code="EssentialContainerExited", stopped_reason="because",
    )  # fmt: skip

    found = described(ecs, task)

    assert {name: found[name] for name in ("connectivity", "connectivityAt", "startedAt", "stoppedAt")} == {
        "connectivity": "CONNECTED", "connectivityAt": 1.5, "startedAt": 2.0, "stoppedAt": 3.0,
    }  # fmt: skip
    assert (found["stopCode"], found["stoppedReason"]) == ("EssentialContainerExited", "because")
    [container] = found["containers"]
    assert (container["exitCode"], container["reason"], container["runtimeId"]) == (3, "why", "77")
    assert container["networkInterfaces"] == [
        {"attachmentId": found["attachments"][0]["id"], "privateIpv4Address": "127.0.0.1"}
    ]
    details = {item["name"]: item["value"] for item in found["attachments"][0]["details"]}
    assert details["privateIPv4Address"] == "127.0.0.1"
    assert set(details) == {"subnetId", "privateIPv4Address", "networkInterfaceId"}


def test_several_tasks_at_once_are_several(ecs):
    answer = run(ecs, count=10, startedBy="ci", group="batch")

    assert len({task["taskArn"] for task in answer["tasks"]}) == 10
    assert {(task["startedBy"], task["group"]) for task in answer["tasks"]} == {("ci", "batch")}


def test_overrides_are_shown_for_each_container_and_change_its_limits(ecs):
    register(ecs, "web-two", [{"name": "a", "image": "x", "memory": 64}, {"name": "b", "image": "y"}])
    override = {"name": "a", "command": ["x"], "cpu": 5, "memory": 128, "memoryReservation": 32}
    given = {"containerOverrides": [override, {}], "cpu": "0.5 vCPU", "memory": "1GB", "taskRoleArn": "r",
             "ephemeralStorage": {"sizeInGiB": 30}}  # fmt: skip

    task = run_one(ecs, "web-two", overrides=given, launchType="FARGATE", enableExecuteCommand=True)

    assert task["overrides"] == {
        "containerOverrides": [override, {"name": "b"}],
        "inferenceAcceleratorOverrides": [],
        "taskRoleArn": "r",
        "cpu": "512",
        "memory": "1024",
        "ephemeralStorage": {"sizeInGiB": 30},
    }
    assert (task["cpu"], task["memory"], task["ephemeralStorage"]) == ("512", "1024", {"sizeInGiB": 30})
    first, second = task["containers"]
    assert (first["cpu"], first["memory"], first["memoryReservation"]) == ("5", "128", "32")
    assert (second["cpu"], "memory" in second) == ("0", False)
    assert task["enableExecuteCommand"] is True


def test_tags_are_given_propagated_and_managed(ecs):
    task = run_one(
        ecs, tags=[{"key": "a", "value": "b"}], propagateTags="TASK_DEFINITION", enableECSManagedTags=True
    )

    expected = [
        {"key": "from", "value": "definition"},
        {"key": "a", "value": "b"},
        {"key": "aws:ecs:clusterName", "value": "default"},
    ]
    assert task["tags"] == expected
    assert described(ecs, task)["tags"] == []
    assert described(ecs, task, include=["TAGS"])["tags"] == expected
    change(ecs, task, last_status="STOPPED", stop_code="UserInitiated")
    assert described(ecs, task, include=["TAGS"])["tags"] == []


def test_a_strategy_spreads_tasks_over_its_providers(ecs):
    strategy = [
        {"capacityProvider": "FARGATE", "base": 1, "weight": 1},
        {"capacityProvider": "FARGATE_SPOT", "weight": 2},
    ]

    started = run(ecs, count=4, capacityProviderStrategy=strategy)["tasks"]

    assert sorted(task["capacityProviderName"] for task in started) == ["FARGATE"] * 2 + ["FARGATE_SPOT"] * 2
    assert {task["platformVersion"] for task in started} == {"1.4.0"}


def test_a_literal_host_port_is_had_by_one_task_at_a_time(ecs):
    fixed = register_bridge(ecs, "fixed", 8081)["taskDefinitionArn"]

    answer = run(ecs, fixed, count=2)

    assert len(answer["tasks"]) == 1
    assert answer["failures"] == [{"arn": PREFIX + "cluster/default", "reason": "RESOURCE:PORTS"}]
    other = register_bridge(ecs, "other", 8081)["taskDefinitionArn"]
    ecs.region = "eu-west-1"
    ecs.call(clusters.create_cluster)
    elsewhere = register_bridge(ecs, "fixed", 8081)["taskDefinitionArn"]
    assert run(ecs, elsewhere)["failures"][0]["reason"] == "RESOURCE:PORTS"
    ecs.region = REGION
    change(ecs, answer["tasks"][0], last_status="STOPPED")
    assert run(ecs, other)["failures"] == []


def test_reserved_host_ports_are_never_free(ecs):
    fixed = register_bridge(ecs, "fixed", 2375)["taskDefinitionArn"]

    assert run(ecs, fixed)["failures"][0]["reason"] == "RESOURCE:PORTS"


def test_a_client_token_makes_a_request_idempotent(ecs):
    first = run(ecs, clientToken="t1", count=2)
    again = run(ecs, clientToken="t1", count=2)

    assert again == first
    assert len(ecs.state.scan(Task)) == 2
    assert len(ecs.state.scan(ClientToken)) == 1
    with pytest.raises(ConflictException) as caught:
        run(ecs, clientToken="t1", count=1)
    assert caught.value.members == {"resourceIds": [task["taskArn"] for task in first["tasks"]]}
    run_one(ecs, clientToken="t2")
    assert len(ecs.state.scan(Task)) == 3


LONG = [{"name": "web", "command": ["x" * 8192]}]


@pytest.mark.parametrize(
    ("params", "error", "message"),
    [
        ({"count": 0}, InvalidParameterException, "between 1 and 10"),
        ({"count": 11}, InvalidParameterException, "between 1 and 10"),
        ({"cluster": "nope"}, ClusterNotFoundException, "Cluster not found."),
        ({"definition": "nope"}, ClientException, "TaskDefinition not found."),
        ({"definition": "web:7"}, ClientException, "TaskDefinition not found."),
        (
            {"networkConfiguration": {}},
            InvalidParameterException,
            "must be provided when networkMode 'awsvpc'",
        ),
        (
            {"definition": "bridge", "networkConfiguration": NETWORK},
            InvalidParameterException,
            "not valid for the given networkMode",
        ),
        ({"definition": "bridge", "launchType": "FARGATE"}, InvalidParameterException, "launch_type FARGATE"),
        (
            {"launchType": "EC2", "networkConfiguration": PUBLIC},
            InvalidParameterException,
            "Assign public IP is not supported for this launch type.",
        ),
        (
            {"launchType": "FARGATE", "capacityProviderStrategy": [{"capacityProvider": "FARGATE"}]},
            InvalidParameterException,
            "Specifying both a launch type and capacity provider strategy",
        ),
        ({"platformVersion": "1.4.0"}, InvalidParameterException, "platform version must be null"),
        ({"platformVersion": "9", "launchType": "FARGATE"}, PlatformUnknownException, "does not exist"),
        ({"propagateTags": "SERVICE"}, InvalidParameterException, "SERVICE"),
        ({"tags": [{"key": "aws:x"}]}, InvalidParameterException, "reserved"),
        ({"group": "service:web"}, InvalidParameterException, "Invalid namespace for group."),
        ({"startedBy": "x" * 129}, InvalidParameterException, "up to 128"),
        ({"clientToken": "x" * 65}, InvalidParameterException, "clientToken"),
        ({"clientToken": "a b"}, InvalidParameterException, "clientToken"),
        ({"enableExecuteCommand": True}, InvalidParameterException, "taskRoleArn"),
        (
            {"overrides": {"containerOverrides": [{"name": "db"}]}},
            InvalidParameterException,
            "Override for container named db is not a container in the TaskDefinition.",
        ),
        ({"overrides": {"containerOverrides": [{"cpu": 1}]}}, InvalidParameterException, "cannot be null"),
        (
            {"overrides": {"containerOverrides": [{"name": "web"}, {"name": "web"}]}},
            InvalidParameterException,
            "more than once",
        ),
        ({"overrides": {"containerOverrides": LONG}}, InvalidParameterException, "at most 8192"),
        ({"overrides": {"cpu": "lots"}}, InvalidParameterException, "Invalid 'cpu'"),
        (
            {"overrides": {"memory": "4096"}, "launchType": "FARGATE"},
            InvalidParameterException,
            "No Fargate configuration exists",
        ),
        ({"overrides": {"ephemeralStorage": {"sizeInGiB": 201}}}, InvalidParameterException, "ephemeral"),
        (
            {"networkConfiguration": {"awsvpcConfiguration": {"subnets": []}}},
            InvalidParameterException,
            "subnets can not be empty.",
        ),
        (
            {"networkConfiguration": {"awsvpcConfiguration": {"subnets": ["s"] * 17}}},
            InvalidParameterException,
            "at most 16",
        ),
    ],
)
def test_what_cannot_be_run_is_refused_and_leaves_nothing(ecs, params, error, message):
    with pytest.raises(error) as caught:
        run(ecs, **params)

    assert message in caught.value.message
    assert ecs.state.scan(Task) == []


def test_platform_versions(ecs):
    assert run_one(ecs, launchType="FARGATE", platformVersion="1.3.0")["platformVersion"] == "1.3.0"
    assert run_one(ecs, launchType="FARGATE", platformVersion="LATEST")["platformVersion"] == "1.4.0"
    register(ecs, "web-big", ephemeralStorage={"sizeInGiB": 30})
    with pytest.raises(PlatformTaskDefinitionIncompatibilityException):
        run(ecs, "web-big", launchType="FARGATE", platformVersion="1.3.0")


def test_the_platform_of_the_definition(ecs):
    windows = {"operatingSystemFamily": "WINDOWS_SERVER_2022_CORE", "cpuArchitecture": "X86_64"}
    register(ecs, "web-windows", runtimePlatform=windows)
    register(ecs, "web-arm", runtimePlatform={"cpuArchitecture": "ARM64"})

    task = run_one(ecs, "web-windows", launchType="FARGATE")
    arm = run_one(ecs, "web-arm", launchType="FARGATE")

    assert (task["platformFamily"], task["platformVersion"]) == ("Windows_Server_2022_Core", "1.0.0")
    assert (arm["platformFamily"], arm["attributes"][0]["value"]) == ("Linux", "arm64")


def test_an_inactive_definition_is_not_run(ecs):
    ecs.call(task_definitions.deregister_task_definition, taskDefinition="web:1")

    with pytest.raises(ClientException, match="TaskDefinition is inactive"):
        run(ecs, "web:1")


def test_stopping_is_planned_and_says_who_and_why(ecs):
    task = run_one(ecs)
    change(ecs, task, last_status="RUNNING")
    ecs.now += 5

    stopped = ecs.call(tasks.stop_task, task=task["taskArn"], reason="enough")["task"]

    assert (stopped["lastStatus"], stopped["desiredStatus"]) == ("DEACTIVATING", "STOPPED")
    assert (stopped["stopCode"], stopped["stoppedReason"]) == ("UserInitiated", "enough")
    assert stopped["stoppingAt"] == ecs.now
    again = ecs.call(tasks.stop_task, task=task["taskArn"].rpartition("/")[2], reason="other")["task"]
    assert again == stopped


def test_the_reason_without_one(ecs):
    stopped = ecs.call(tasks.stop_task, task=run_one(ecs)["taskArn"])["task"]

    assert stopped["stoppedReason"] == lifecycle.STOPPED_BY_USER == "Task stopped by user"


@pytest.mark.parametrize(
    "name",
    ["0" * 32, PREFIX + "task/other/" + "0" * 31 + "1", "x/y", "arn:aws:s3:::x",
     "arn:aws:ecs:eu-west-1:123456789012:task/default/1"],
)  # fmt: skip
def test_a_task_that_is_not_there_is_not_stopped(ecs, name):
    run_one(ecs)

    with pytest.raises(InvalidParameterException):
        ecs.call(tasks.stop_task, task=name)


def test_describing_says_what_is_missing(ecs):
    task = run_one(ecs)
    other = PREFIX + "task/other/1"

    answer = ecs.call(tasks.describe_tasks, tasks=[task["taskArn"], "nope", other])

    assert answer["tasks"] == [task]
    assert answer["failures"] == [
        {"arn": PREFIX + "task/default/nope", "reason": "MISSING"},
        {"arn": other, "reason": "MISSING"},
    ]


@pytest.mark.parametrize(
    ("params", "error"),
    [
        ({"tasks": []}, InvalidParameterException),
        ({"tasks": ["x"] * 101}, InvalidParameterException),
        ({"tasks": ["x"], "cluster": "nope"}, ClusterNotFoundException),
    ],
)
def test_what_cannot_be_described(ecs, params, error):
    with pytest.raises(error):
        ecs.call(tasks.describe_tasks, **params)


def test_tasks_are_listed_by_what_was_asked(ecs):
    mine = run_one(ecs, startedBy="me")["taskArn"]
    bridge = run_one(ecs, "bridge")["taskArn"]
    fargate = run_one(ecs, launchType="FARGATE")
    ecs.call(tasks.stop_task, task=fargate["taskArn"])

    def listed(**params):
        return ecs.call(tasks.list_tasks, **params)["taskArns"]

    assert listed() == [mine, bridge]
    assert listed(desiredStatus="STOPPED") == [fargate["taskArn"]]
    assert listed(desiredStatus="PENDING") == []
    assert listed(family="bridge") == [bridge]
    assert listed(startedBy="me") == [mine]
    assert listed(launchType="FARGATE", desiredStatus="STOPPED") == [fargate["taskArn"]]
    assert listed(containerInstance="x") == []
    first = ecs.call(tasks.list_tasks, maxResults=1)
    assert ecs.call(tasks.list_tasks, nextToken=first["nextToken"])["taskArns"] == [bridge]
    with pytest.raises(ServiceNotFoundException):
        listed(serviceName="nope")
    with pytest.raises(InvalidParameterException, match="must be the only filter"):
        listed(startedBy="me", family="web")


def test_a_row_written_by_an_older_kecs_is_still_described(ecs):
    old = Task(
        region=REGION, cluster="default", id="1", group="family:x", task_definition="x", family="x",
        revision=1, containers=[Container(name="a", id="b", image="c")], created_at=1.0,
    )  # fmt: skip
    ecs.write(lambda tx: tx.put(old))

    assert ecs.call(tasks.describe_tasks, tasks=["1"])["failures"] == []


def test_a_service_of_another_region_is_not_this_one(ecs):
    ecs.call(
        services.create_service, serviceName="web", taskDefinition="web", networkConfiguration=NETWORK,
        desiredCount=0,
    )  # fmt: skip
    elsewhere = "arn:aws:ecs:eu-west-1:123456789012:service/default/web"

    with pytest.raises(ServiceNotFoundException):
        ecs.call(tasks.list_tasks, serviceName=elsewhere)
    assert ecs.call(tasks.list_tasks, serviceName=elsewhere.replace("eu-west-1", REGION))["taskArns"] == []
