"""What is said to have no effect: per runtime, and on one of Pods only what a Pod really does not honour."""

import pytest
from tests.controlplane.world import service, task_definition
from tests.ecs.shapes import REGION, Ecs

from kecs.controlplane import without_effect
from kecs.ecs import task_definitions
from kecs.ecs.context import RuntimeTraits
from kecs.ecs.model import TaskDefinition


def told(*containers, runtime="kubernetes", **members):
    """Return what is said of a definition, which is registered on that runtime first."""
    ecs = Ecs()
    ecs.runtime = RuntimeTraits(name=runtime, instance_id="i")
    ecs.call(
        task_definitions.register_task_definition,
        family="web",
        containerDefinitions=[{"name": "web", "image": "web:1", "memory": 64} | each for each in containers],
        **members,
    )
    return list(without_effect.of_definition(ecs.state.get(TaskDefinition, REGION, "web", 1), runtime))


HONOURED = {
    "cpu": 128, "memory": 128, "memoryReservation": 64, "entryPoint": ["a"], "command": ["b"], "user": "1000",
    "workingDirectory": "/", "environment": [{"name": "A", "value": "b"}], "privileged": True,
    "secrets": [{"name": "B", "valueFrom": "b"}], "readonlyRootFilesystem": True, "interactive": True,
    "pseudoTerminal": True, "stopTimeout": 3, "healthCheck": {"command": ["CMD", "true"]}, "startTimeout": 9,
    "hostname": "web", "dnsServers": ["1.1.1.1"], "dnsSearchDomains": ["a.b"],
    "extraHosts": [{"hostname": "a", "ipAddress": "10.0.0.1"}], "dockerLabels": {"com.example.a": "b"},
    "dockerSecurityOptions": ["no-new-privileges"],
    "systemControls": [{"namespace": "net.core.somaxconn", "value": "9"}],
    "resourceRequirements": [{"type": "GPU", "value": "1"}],
    "portMappings": [{"containerPort": 80, "hostPort": 8080}],
    "mountPoints": [{"sourceVolume": "data", "containerPath": "/data"}],
    "linuxParameters": {
        "capabilities": {"add": ["NET_ADMIN"]}, "sharedMemorySize": 64,
        "tmpfs": [{"containerPath": "/run", "size": 8, "mountOptions": ["ro"]}],
    },
}  # fmt: skip


def test_nothing_is_said_of_what_a_pod_honours():
    volumes = [{"name": "data", "host": {"sourcePath": "/srv"}}, {"name": "own"}]

    assert told(HONOURED, volumes=volumes, cpu="256", memory="512", pidMode="task", ipcMode="host") == []


def test_on_a_runtime_of_processes_the_same_settings_are_named():
    members = {
        sentence.split(":")[0]
        for sentence in told(HONOURED, runtime="local", cpu="256", volumes=[{"name": "data"}])
    }

    assert members >= {
        "cpu",
        "image of container web",
        "memory of container web",
        "mountPoints of container web",
    }


CASES = {
    "logs": ([{"logConfiguration": {"logDriver": "awslogs"}}], {}, "logConfiguration of container web: "),
    "registry": (
        [{"repositoryCredentials": {"credentialsParameter": "x"}}],
        {},
        "repositoryCredentials of container web: the cluster pulls images with its own credentials",
    ),
    "ulimits": (
        [{"ulimits": [{"name": "nofile", "softLimit": 1, "hardLimit": 1}]}],
        {},
        "ulimits of container web: ",
    ),
    "restart": ([{"restartPolicy": {"enabled": True}}], {}, "restartPolicy of container web: "),
    "init": (
        [{"linuxParameters": {"initProcessEnabled": True}}],
        {},
        "linuxParameters.initProcessEnabled of container web: ",
    ),
    "devices": (
        [{"linuxParameters": {"devices": [{"hostPath": "/dev/kvm"}]}}],
        {},
        "linuxParameters.devices of container web: ",
    ),
    "tmpfs options": (
        [{"linuxParameters": {"tmpfs": [{"containerPath": "/t", "size": 1, "mountOptions": ["noexec"]}]}}],
        {},
        "linuxParameters.tmpfs of container web: of the mount options of /t only `ro` is kept",
    ),
    "security options": (
        [{"dockerSecurityOptions": ["no-new-privileges", "apparmor:x"]}],
        {},
        "dockerSecurityOptions of container web: apparmor:x cannot be said to Kubernetes",
    ),
    "an illegal host name": ([{"hostname": "Web_1"}], {}, "hostname of container web: "),
    "two host names": (
        [{"hostname": "a"}, {"name": "b", "hostname": "b"}],
        {},
        "hostname: the containers of a pod share it: the first one's is taken",
    ),
    "two lists of name servers": (
        [{"dnsServers": ["1.1.1.1"]}, {"name": "b", "dnsServers": ["1.1.1.2"]}],
        {},
        "dnsServers: the containers of a pod share it: all of them hold for each",
    ),
    "four name servers": (
        [{"dnsServers": ["1.1.1.1", "1.1.1.2", "1.1.1.3", "1.1.1.4"]}],
        {},
        "dnsServers: a pod has 3 at most: the first ones are taken",
    ),
    "labels": (
        [{"dockerLabels": {"not legal": "x", "com.example.a": "y"}}],
        {},
        "dockerLabels of container web: not legal cannot be an annotation of a pod",
    ),
    "EFS": (
        [{}],
        {"volumes": [{"name": "data", "efsVolumeConfiguration": {"fileSystemId": "fs-1"}}]},
        "volumes: data is an empty folder of the task; no volume of EFS is mounted",
    ),
    "a shared volume": (
        [{}],
        {"volumes": [{"name": "data", "dockerVolumeConfiguration": {"scope": "shared"}}]},
        "volumes: data is an empty folder of the task: it is not shared with other tasks",
    ),
    "a volume driver": (
        [{}],
        {"volumes": [{"name": "data", "dockerVolumeConfiguration": {"scope": "task", "driver": "rexray"}}]},
        "volumes: data is an empty folder of the task; no driver of Docker is asked",
    ),
    "sizes of several containers": (
        [{}, {"name": "b"}],
        {"memory": "512"},
        "memory: each container may use it; Kubernetes does not limit their sum",
    ),
    "several stop timeouts": (
        [{"stopTimeout": 5}, {"name": "b"}],
        {},
        "stopTimeout: a pod has one grace period: the longest holds for all its containers",
    ),
    "no network": ([{}], {"networkMode": "none"}, "networkMode: a pod always has a network"),
    "no IPC": ([{}], {"ipcMode": "none"}, "ipcMode: the containers of a pod share IPC"),
    "a port of the host that is to be chosen": (
        [{"portMappings": [{"containerPort": 80}]}],
        {},
        "portMappings of container web: without a hostPort no port of the node is opened",
    ),
    "COMPLETE": (
        [
            {"dependsOn": [{"containerName": "b", "condition": "COMPLETE"}]},
            {"name": "b", "essential": False},
        ],
        {},
        "dependsOn of container web: container b must end with exit code 0: ",
    ),
    "the health of an init container": (
        [
            {"dependsOn": [{"containerName": "b", "condition": "SUCCESS"}]},
            {"name": "b", "essential": False, "healthCheck": {"command": ["CMD", "true"]}},
        ],
        {},
        "healthCheck of container b: others wait for it to end",
    ),
    "one that may end beside one that serves": (
        [{"portMappings": [{"containerPort": 80, "hostPort": 80}]}, {"name": "b", "essential": False}],
        {},
        "essential of container b: once it has ended the pod does not count as ready",
    ),
    "a platform": (
        [{}],
        {"runtimePlatform": {"cpuArchitecture": "ARM64"}},
        "runtimePlatform: nodes of it are preferred",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_what_a_pod_does_not_honour_is_named_and_nothing_else(case):
    containers, members, sentence = CASES[case]
    sentences = told(*containers, **members)

    assert len(sentences) == 1
    assert sentences[0].startswith(sentence)


@pytest.mark.parametrize(
    ("runtime", "sentence"),
    [
        ("local", "subnets: accepted unchecked; local processes use this machine's network"),
        ("kubernetes", "subnets: accepted unchecked; pods are in the cluster's network"),
    ],
)
def test_what_a_service_says_is_told_for_its_runtime(runtime, sentence):
    row = service(settings={"placementStrategy": [{"type": "spread"}]})
    sentences = list(without_effect.of_service(row, runtime))

    assert sentence in sentences
    why = {"local": "there is one machine", "kubernetes": "Kubernetes chooses the node"}[runtime]
    assert f"placementStrategy: {why}" in sentences


def test_an_order_that_was_registered_elsewhere_says_nothing_of_itself():
    containers = [
        {"name": "db", "image": "db", "essential": True, "portMappings": []},
        {
            "name": "seed", "image": "seed", "essential": False, "portMappings": [],
            "dependsOn": [{"containerName": "db", "condition": "START"}],
        },
    ]  # fmt: skip
    definition = task_definition(containers=containers)

    assert list(without_effect.of_definition(definition, "kubernetes")) == []
