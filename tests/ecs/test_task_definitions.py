import pytest

from kecs.ecs import task_definitions
from kecs.ecs.errors import ClientException, InvalidParameterException
from kecs.ecs.model import TaskDefinition

from .shapes import REGION, Ecs

ARN = "arn:aws:ecs:us-east-1:123456789012:task-definition/"
CHECK = {"command": ["CMD-SHELL", "true"]}


@pytest.fixture
def ecs():
    return Ecs()


def container(name="web", **members):
    return {"name": name, "image": "nginx:1", "memory": 64, **members}


def register(ecs, family="web", containers=None, **members):
    return ecs.call(
        task_definitions.register_task_definition,
        family=family,
        containerDefinitions=[container()] if containers is None else containers,
        **members,
    )["taskDefinition"]


def fargate(ecs, *containers, **members):
    return register(
        ecs, containers=list(containers) or [container()],
        **{"requiresCompatibilities": ["FARGATE"], "networkMode": "awsvpc", "cpu": "256", "memory": "512",
           **members},
    )  # fmt: skip


def test_a_plain_definition_is_shown_with_its_defaults(ecs):
    registered = register(ecs, containers=[{"name": "web", "image": "nginx", "memory": 64}])

    assert registered == {
        "taskDefinitionArn": ARN + "web:1",
        "family": "web",
        "revision": 1,
        "status": "ACTIVE",
        "networkMode": "bridge",
        "volumes": [],
        "placementConstraints": [],
        "containerDefinitions": [
            {
                "name": "web", "image": "nginx", "memory": 64, "cpu": 0, "essential": True, "environment": [],
                "mountPoints": [], "volumesFrom": [], "portMappings": [], "systemControls": [],
            }
        ],
        "requiresAttributes": [{"name": "com.amazonaws.ecs.capability.docker-remote-api.1.18"}],
        "compatibilities": ["EC2"],
        "registeredAt": 1700000000.0,
        "registeredBy": "arn:aws:iam::123456789012:root",
    }  # fmt: skip


def test_a_fargate_definition(ecs):
    registered = fargate(
        ecs, container(portMappings=[{"containerPort": 80, "name": "http"}]), cpu=".25 vCPU", memory="1 GB"
    )

    assert (registered["cpu"], registered["memory"]) == ("256", "1024")
    assert registered["compatibilities"] == ["EC2", "FARGATE"]
    assert registered["requiresCompatibilities"] == ["FARGATE"]
    assert registered["containerDefinitions"][0]["portMappings"] == [
        {"containerPort": 80, "hostPort": 80, "protocol": "tcp", "name": "http"}
    ]
    assert {"name": "ecs.capability.task-eni"} in registered["requiresAttributes"]


def test_what_is_described_is_what_was_registered(ecs):
    registered = register(ecs, tags=[{"key": "a", "value": "b"}])
    describe = task_definitions.describe_task_definition

    for name in ("web", "web:1", ARN + "web:1", ARN + "web"):
        assert ecs.call(describe, taskDefinition=name) == {"taskDefinition": registered}
    with_tags = ecs.call(describe, taskDefinition="web", include=["TAGS"])
    assert with_tags["tags"] == [{"key": "a", "value": "b"}]


def test_revisions_only_grow_and_the_family_means_the_latest_active_one(ecs):
    for _ in range(3):
        register(ecs)
    ecs.call(task_definitions.deregister_task_definition, taskDefinition="web:3")
    described = ecs.call(task_definitions.describe_task_definition, taskDefinition="web")

    assert described["taskDefinition"]["revision"] == 2
    ecs.call(task_definitions.delete_task_definitions, taskDefinitions=["web:3"])
    ecs.write(lambda tx: tx.delete(tx.get(TaskDefinition, REGION, "web", 3)))
    assert register(ecs)["revision"] == 4


def test_the_life_of_a_revision(ecs):
    register(ecs)
    ecs.now += 10

    inactive = ecs.call(task_definitions.deregister_task_definition, taskDefinition="web:1")["taskDefinition"]
    again = ecs.call(task_definitions.deregister_task_definition, taskDefinition="web:1")["taskDefinition"]
    assert inactive == again
    assert (inactive["status"], inactive["deregisteredAt"]) == ("INACTIVE", ecs.now)
    with pytest.raises(ClientException, match="Unable to describe task definition"):
        ecs.call(task_definitions.describe_task_definition, taskDefinition="web")
    ecs.now += 10
    deleted = ecs.call(task_definitions.delete_task_definitions, taskDefinitions=["web:1"])
    [gone] = deleted["taskDefinitions"]
    assert (gone["status"], gone["deleteRequestedAt"]) == ("DELETE_IN_PROGRESS", ecs.now)
    assert ecs.call(task_definitions.delete_task_definitions, taskDefinitions=["web:1"]) == deleted
    with pytest.raises(InvalidParameterException, match="being deleted"):
        ecs.call(task_definitions.deregister_task_definition, taskDefinition="web:1")


def test_only_inactive_revisions_are_deleted(ecs):
    register(ecs)

    answer = ecs.call(
        task_definitions.delete_task_definitions, taskDefinitions=["web:1", "web:9", "web", ARN + "no:1"]
    )

    assert answer["taskDefinitions"] == []
    assert [(item["arn"], item["reason"][:34]) for item in answer["failures"]] == [
        (ARN + "web:1", "The specified task definition is s"),
        ("web:9", "The specified task definition does"),
        ("web", "The specified task definition iden"),
        (ARN + "no:1", "The specified task definition does"),
    ]
    for count in (0, 11):
        with pytest.raises(InvalidParameterException, match="between 1 and 10"):
            ecs.call(task_definitions.delete_task_definitions, taskDefinitions=["web:1"] * count)


@pytest.mark.parametrize(
    ("function", "name", "message"),
    [
        ("deregister_task_definition", "web", "Revision is missing."),
        ("deregister_task_definition", "nope:1", "Unable to describe task definition."),
        ("deregister_task_definition", "web:x", "Invalid revision number. Number: x"),
        ("describe_task_definition", "nope", "Unable to describe task definition."),
        ("describe_task_definition", "web:9", "Unable to describe task definition."),
        ("describe_task_definition", "arn:aws:ecs:eu-west-1:123456789012:task-definition/web:1", "Unable to"),
        ("describe_task_definition", "arn:aws:s3:::x", "not an ARN of ECS"),
    ],
)
def test_a_definition_that_is_not_there(ecs, function, name, message):
    register(ecs)

    with pytest.raises(ClientException, match=message):
        ecs.call(getattr(task_definitions, function), taskDefinition=name)


def test_definitions_are_listed_by_family_status_and_order(ecs):
    for family in ("web", "web-2", "api"):
        register(ecs, family)
    register(ecs, "web")
    ecs.call(task_definitions.deregister_task_definition, taskDefinition="api:1")

    def listed(**params):
        answer = ecs.call(task_definitions.list_task_definitions, **params)
        return [name.removeprefix(ARN) for name in answer["taskDefinitionArns"]]

    assert listed() == ["web:1", "web:2", "web-2:1"]
    assert listed(sort="DESC") == listed()[::-1]
    assert listed(familyPrefix="web") == ["web:1", "web:2"]
    assert listed(status="INACTIVE") == ["api:1"]
    assert listed(status="DELETE_IN_PROGRESS") == []
    first = ecs.call(task_definitions.list_task_definitions, maxResults=2)
    rest = ecs.call(task_definitions.list_task_definitions, nextToken=first["nextToken"])
    assert len(first["taskDefinitionArns"]) + len(rest["taskDefinitionArns"]) == 3


def test_families_are_listed_by_prefix_and_status(ecs):
    for family in ("web", "web-2", "api"):
        register(ecs, family)
    ecs.call(task_definitions.deregister_task_definition, taskDefinition="api:1")

    def listed(**params):
        return ecs.call(task_definitions.list_task_definition_families, **params)["families"]

    assert listed() == ["api", "web", "web-2"]
    assert listed(status="ACTIVE") == ["web", "web-2"]
    assert listed(status="INACTIVE") == ["api"]
    assert listed(familyPrefix="web-") == ["web-2"]


PORT = {"containerPort": 80}
HALF = {"containerPort": 80, "hostPort": 8080}


@pytest.mark.parametrize(
    ("mode", "given", "shown"),
    [
        ("bridge", PORT, {"containerPort": 80, "hostPort": 0, "protocol": "tcp"}),
        ("bridge", HALF, {"containerPort": 80, "hostPort": 8080, "protocol": "tcp"}),
        ("host", PORT, {"containerPort": 80, "hostPort": 80, "protocol": "tcp"}),
        ("awsvpc", {**PORT, "hostPort": 0}, {"containerPort": 80, "hostPort": 80, "protocol": "tcp"}),
        ("bridge", {**PORT, "protocol": "udp"}, {"containerPort": 80, "hostPort": 0, "protocol": "udp"}),
        ("bridge", {**PORT, "protocol": "TCP"}, {"containerPort": 80, "hostPort": 0, "protocol": "tcp"}),
        ("awsvpc", {"containerPortRange": "80-82"}, {"containerPortRange": "80-82", "protocol": "tcp"}),
    ],
)
def test_port_mappings_by_network_mode(ecs, mode, given, shown):
    registered = register(ecs, containers=[container(portMappings=[given])], networkMode=mode)

    assert registered["containerDefinitions"][0]["portMappings"] == [shown]


def test_a_health_check_is_shown_with_its_defaults(ecs):
    registered = register(ecs, containers=[container(healthCheck=CHECK)])

    assert registered["containerDefinitions"][0]["healthCheck"] == {
        **CHECK,
        "interval": 30,
        "timeout": 5,
        "retries": 3,
    }


def test_attributes_say_what_the_definition_needs(ecs):
    registered = register(
        ecs,
        containers=[
            container(
                image="123456789012.dkr.ecr.us-east-1.amazonaws.com/web:1",
                logConfiguration={"logDriver": "awslogs", "options": {"awslogs-group": "g"}},
                secrets=[
                    {"name": "A", "valueFrom": "arn:aws:secretsmanager:us-east-1:123456789012:secret:a"}
                ],
                dependsOn=[{"containerName": "db", "condition": "HEALTHY"}],
            ),
            container("db", healthCheck=CHECK, secrets=[{"name": "B", "valueFrom": "/b"}]),
        ],
        taskRoleArn="r",
        executionRoleArn="r",
    )

    names = {item["name"].removeprefix("com.amazonaws.") for item in registered["requiresAttributes"]}
    assert names == {
        "ecs.capability.docker-remote-api.1.18", "ecs.capability.docker-remote-api.1.19",
        "ecs.capability.docker-remote-api.1.24", "ecs.capability.task-iam-role",
        "ecs.capability.logging-driver.awslogs", "ecs.capability.execution-role-awslogs",
        "ecs.capability.ecr-auth", "ecs.capability.execution-role-ecr-pull",
        "ecs.capability.secrets.asm.environment-variables",
        "ecs.capability.secrets.ssm.environment-variables",
        "ecs.capability.container-ordering", "ecs.capability.container-health-check",
    }  # fmt: skip


def depends(on, condition):
    return [{"containerName": on, "condition": condition}]


REFUSED = {
    "Container definitions should not be null or empty": {"containers": []},
    "Family contains invalid characters": {"family": "a b"},
    "Family should not be null or empty": {"family": ""},
    "Container.name should not be null or empty.": {"containers": [{"image": "x"}]},
    "Container.name contains invalid characters.": {"containers": [container("a b")]},
    "Container.image should not be null or empty.": {"containers": [{"name": "x", "memory": 64}]},
    "Container.image contains invalid characters.": {"containers": [container(image="$IMAGE")]},
    "names must be unique": {"containers": [container(), container()]},
    "at least one essential": {"containers": [container(essential=False)]},
    "At least one of 'memory' or 'memoryReservation' must be specified.": {
        "containers": [{"name": "x", "image": "x"}]
    },
    "must be at least 4": {"containers": [container(memory=3)]},
    "greater than 'memoryReservation'": {"containers": [container(memoryReservation=65)]},
    "more than the task's: 32 MiB": {"memory": "32"},
    "Invalid 'cpu' setting for container": {"containers": [container(cpu=-1)]},
    "total of 300 CPU units": {"cpu": "256", "containers": [container(cpu=300)]},
    "Invalid 'cpu' setting for task: 'lots'": {"cpu": "lots"},
    "Invalid 'memory' setting for task: 'lots'": {"memory": "lots"},
    "networkMode=awsvpc, the host ports and container ports in port mappings must match": {
        "networkMode": "awsvpc",
        "containers": [container(portMappings=[HALF])],
    },
    "networkMode=host, the host ports": {
        "networkMode": "host",
        "containers": [container(portMappings=[HALF])],
    },
    "not supported when networkMode=none": {
        "networkMode": "none",
        "containers": [container(portMappings=[PORT])],
    },
    "Links are not supported when networkMode=awsvpc.": {
        "networkMode": "awsvpc",
        "containers": [container(links=["db"]), container("db")],
    },
    "links should not have a cycle": {
        "containers": [container(links=["db"]), container("db", links=["web:w"])]
    },
    "Invalid 'containerPort'": {"containers": [container(portMappings=[{"hostPort": 80}])]},
    "Invalid 'hostPort'": {"containers": [container(portMappings=[{**PORT, "hostPort": 65536}])]},
    "A port can only be included in one": {"containers": [container(portMappings=[PORT, PORT])]},
    "Host port 8080/tcp is used more than once": {
        "containers": [container(portMappings=[HALF]), container("db", portMappings=[HALF])]
    },
    "Invalid port mapping name": {"containers": [container(portMappings=[{**PORT, "name": "-x"}])]},
    "Port mapping names must be unique": {
        "containers": [container(portMappings=[{**PORT, "name": "x"}, {"containerPort": 81, "name": "x"}])]
    },
    "more than KECS makes room for": {
        "containers": [container(portMappings=[{"containerPortRange": "8000-8100"}])]
    },
    "Invalid 'containerPortRange'": {"containers": [container(portMappings=[{"containerPortRange": "9-8"}])]},
    "is not supported when networkMode=host": {
        "networkMode": "host",
        "containers": [container(portMappings=[{"containerPortRange": "8-9"}])],
    },
    "cannot be specified with containerPort": {
        "containers": [container(portMappings=[{"containerPortRange": "8-9", **PORT}])]
    },
    "which is not a container of the task": {"containers": [container(dependsOn=depends("no", "START"))]},
    "SUCCESS or COMPLETE condition cannot be an essential": {
        "containers": [container(dependsOn=depends("db", "SUCCESS")), container("db")]
    },
    "HEALTHY condition must have a health check": {
        "containers": [container(dependsOn=depends("db", "HEALTHY")), container("db")]
    },
    "dependencies should not have a cycle": {
        "containers": [
            container(dependsOn=depends("db", "START")),
            container("db", dependsOn=depends("web", "START")),
        ]
    },
    "'interval' must be between 5 and 300": {"containers": [container(healthCheck={**CHECK, "interval": 4})]},
    "'timeout' must be between 2 and 60": {"containers": [container(healthCheck={**CHECK, "timeout": 61})]},
    "'retries' must be between 1 and 10": {"containers": [container(healthCheck={**CHECK, "retries": 0})]},
    "'startPeriod' must be between": {"containers": [container(healthCheck={**CHECK, "startPeriod": 301})]},
    "must start with CMD": {"containers": [container(healthCheck={"command": ["curl", "x"]})]},
    "The secret name must be unique": {
        "executionRoleArn": "r",
        "containers": [
            container(secrets=[{"name": "A", "valueFrom": "a"}], environment=[{"name": "A", "value": "1"}])
        ],
    },
    "up to 10 environment files": {
        "containers": [container(environmentFiles=[{"type": "s3", "value": "arn:aws:s3:::b/f.env"}] * 11)]
    },
    "Unknown volume 'data'": {"containers": [container(mountPoints=[{"sourceVolume": "data"}])]},
    "Unknown container 'no'": {"containers": [container(volumesFrom=[{"sourceContainer": "no"}])]},
    "Volume names must be unique": {"volumes": [{"name": "a"}, {"name": "a"}]},
    "Volume.name should not be empty": {"volumes": [{}]},
    "not between 21 and 200": {"ephemeralStorage": {"sizeInGiB": 20}},
    "requiresCompatibilities cannot contain duplicates": {"requiresCompatibilities": ["EC2", "EC2"]},
    "External launch type does not support": {
        "requiresCompatibilities": ["EXTERNAL"],
        "networkMode": "awsvpc",
    },
}


@pytest.mark.parametrize("message", REFUSED)
def test_a_definition_that_breaks_a_rule_is_refused(ecs, message):
    with pytest.raises(ClientException) as caught:
        register(ecs, **REFUSED[message])

    assert message in caught.value.message
    assert ecs.state.scan(TaskDefinition) == []


NOT_ON_FARGATE = {
    "Fargate only supports network mode ‘awsvpc’.": {"networkMode": "bridge"},  # noqa: RUF001
    "No Fargate configuration exists for given values: 256 CPU, 128 memory.": {"memory": "128"},
    "placementConstraints": {"placementConstraints": [{"type": "memberOf", "expression": "x"}]},
    "do not support sourcePath": {"volumes": [{"name": "v", "host": {"sourcePath": "/x"}}]},
    "do not support dockerVolumeConfiguration": {"volumes": [{"name": "v", "dockerVolumeConfiguration": {}}]},
}


@pytest.mark.parametrize("message", NOT_ON_FARGATE)
def test_what_fargate_has_not_is_refused(ecs, message):
    with pytest.raises(ClientException) as caught:
        fargate(ecs, **NOT_ON_FARGATE[message])

    assert message in caught.value.message


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"privileged": True}, "privileged"),
        ({"logConfiguration": {"logDriver": "json-file"}}, "Log driver json-file"),
        ({"stopTimeout": 121}, "up to 120 seconds"),
        ({"startTimeout": 121}, "up to 120 seconds"),
    ],
)
def test_a_container_that_fargate_has_not_is_refused(ecs, members, message):
    with pytest.raises(ClientException, match=message):
        fargate(ecs, container(**members))


def test_fargate_needs_a_size(ecs):
    with pytest.raises(ClientException, match="'cpu' be defined at the task level"):
        register(ecs, requiresCompatibilities=["FARGATE"], networkMode="awsvpc", memory="512")


def test_what_is_expressible_is_not_refused(ecs):
    """No command is the runtime's matter; a chain of dependencies is fine."""
    chain = [
        container(dependsOn=depends("init", "SUCCESS") + depends("db", "HEALTHY")),
        container("init", essential=False, dependsOn=depends("db", "START")),
        container("db", healthCheck=CHECK),
    ]

    assert register(ecs, containers=chain)["revision"] == 1
