"""From a task definition to Kubernetes objects: each setting and exactly what stands for it in the Pod."""

import base64
import json

import msgspec
import pytest
from tests.runtimes.kubernetes.definitions import OWNER, task_of

from kecs.runtimes.base import ExposedPort, Exposure
from kecs.runtimes.kubernetes import manifests
from kecs.runtimes.kubernetes.identity import Owner

CHECK = {"command": ["CMD-SHELL", "curl -f localhost || exit 1"], "interval": 10, "timeout": 4, "retries": 2}
HEALTH = ["/bin/sh", "-c", "curl -f localhost || exit 1"]
HEALTHY = {"exec": {"command": HEALTH}, "periodSeconds": 10, "timeoutSeconds": 4, "failureThreshold": 2}
TCP = {"tcpSocket": {"port": "tcp-80"}, "periodSeconds": 1, "timeoutSeconds": 1, "failureThreshold": 3}
PORT = {"portMappings": [{"containerPort": 80}]}
NEVER = 2**31 - 1


def pod(*containers, **members):
    return manifests.pod(task_of(*containers, **members), OWNER, sleep_action=True)


def container(*containers, name="web", **members):
    spec = pod(*containers, **members)["spec"]
    return next(it for it in [*spec.get("initContainers", []), *spec["containers"]] if it["name"] == name)


def chosen(document, expected):
    """Return the members of `document` that `expected` names."""
    return {member: document.get(member) for member in expected}


CONTAINERS = {
    "nothing said": ({}, {"command": None, "args": None, "securityContext": None, "volumeMounts": None}),
    "image": ({"image": "a/b@sha256:1"}, {"image": "a/b@sha256:1", "imagePullPolicy": "IfNotPresent"}),
    "image that was imported": (
        {"image": "a/b:latest"},
        {"image": "a/b:latest", "imagePullPolicy": "IfNotPresent"},
    ),
    "image without a tag": ({"image": "a/b"}, {"image": "a/b", "imagePullPolicy": "IfNotPresent"}),
    "command alone keeps the image's entry point": (
        {"command": ["a", "b"]},
        {"command": None, "args": ["a", "b"]},
    ),
    "entry point alone": ({"entryPoint": ["sh", "-c"]}, {"command": ["sh", "-c"], "args": None}),
    "both": ({"entryPoint": ["sh"], "command": ["-c", "x"]}, {"command": ["sh"], "args": ["-c", "x"]}),
    "an empty entry point drops the image's": (
        {"entryPoint": [""], "command": ["serve"]},
        {"command": ["serve"], "args": None},
    ),
    "what Kubernetes would expand": (
        {"entryPoint": ["$(A)"], "command": ["$$", "$A"]},
        {"command": ["$$(A)"], "args": ["$$$$", "$$A"]},
    ),
    "workingDirectory": ({"workingDirectory": "/srv"}, {"workingDir": "/srv"}),
    "user": ({"user": "1000"}, {"securityContext": {"runAsUser": 1000}}),
    "user and group": ({"user": "0:20"}, {"securityContext": {"runAsUser": 0, "runAsGroup": 20}}),
    "privileged": ({"privileged": True}, {"securityContext": {"privileged": True}}),
    "readonlyRootFilesystem": (
        {"readonlyRootFilesystem": True},
        {"securityContext": {"readOnlyRootFilesystem": True}},
    ),
    "capabilities": (
        {"linuxParameters": {"capabilities": {"add": ["NET_ADMIN"], "drop": ["ALL"]}}},
        {"securityContext": {"capabilities": {"add": ["NET_ADMIN"], "drop": ["ALL"]}}},
    ),
    "no new privileges": (
        {"dockerSecurityOptions": ["no-new-privileges"]},
        {"securityContext": {"allowPrivilegeEscalation": False}},
    ),
    "no new privileges of a privileged one": (
        {"dockerSecurityOptions": ["no-new-privileges"], "privileged": True},
        {"securityContext": {"privileged": True}},
    ),
    "a terminal": ({"pseudoTerminal": True, "interactive": True}, {"tty": True, "stdin": True}),
    "ports": (
        {"portMappings": [{"containerPort": 80, "name": "http"}, {"containerPort": 53, "protocol": "udp"}]},
        {
            "ports": [
                {"name": "tcp-80", "containerPort": 80, "protocol": "TCP"},
                {"name": "udp-53", "containerPort": 53, "protocol": "UDP"},
            ]
        },
    ),
    "TCP ports": (PORT, {"readinessProbe": TCP, "startupProbe": None}),
    "UDP ports": (
        {"portMappings": [{"containerPort": 53, "protocol": "udp"}]},
        {"readinessProbe": None, "startupProbe": None},
    ),
    "healthCheck": ({"healthCheck": CHECK}, {"readinessProbe": HEALTHY, "startupProbe": None}),
    "healthCheck without a shell": (
        {"healthCheck": {"command": ["CMD", "check", "$(X)"]}},
        {
            "readinessProbe": {
                "exec": {"command": ["check", "$$(X)"]},
                "periodSeconds": 30,
                "timeoutSeconds": 5,
                "failureThreshold": 3,
            }
        },
    ),
    "healthCheck and TCP ports": (
        {"healthCheck": CHECK, **PORT},
        {"startupProbe": {**TCP, "failureThreshold": NEVER}, "readinessProbe": HEALTHY},
    ),
    "a stop": (PORT, {"lifecycle": {"preStop": {"sleep": {"seconds": 5}}}}),
    "a stop of what serves nobody": ({}, {"lifecycle": None}),
}


@pytest.mark.parametrize("case", CONTAINERS)
def test_a_setting_of_a_container_is_mapped_exactly(case):
    definition, expected = CONTAINERS[case]
    made = container(definition)

    assert chosen(made, expected) == expected


@pytest.mark.parametrize(
    ("definition", "task", "requests", "limits"),
    [
        ({"memory": 128}, {"memory": None}, {"memory": "128Mi"}, {"memory": "128Mi"}),
        ({"memory": 128, "memoryReservation": 64}, {"memory": None}, {"memory": "64Mi"}, {"memory": "128Mi"}),
        ({"memoryReservation": 64}, {"memory": None}, {"memory": "64Mi"}, None),
        ({}, {"memory": "512"}, {"memory": "0"}, {"memory": "512Mi"}),
        ({"memoryReservation": 64}, {"memory": "512"}, {"memory": "64Mi"}, {"memory": "512Mi"}),
        ({"cpu": 256, "memory": 8}, {"memory": None}, {"cpu": "250m", "memory": "8Mi"}, {"memory": "8Mi"}),
        ({"cpu": 10, "memory": 8}, {"memory": None}, {"cpu": "10m", "memory": "8Mi"}, {"memory": "8Mi"}),
        ({}, {"cpu": "256"}, {"cpu": "0", "memory": "0"}, {"cpu": "250m", "memory": "512Mi"}),
        ({"cpu": 128}, {"cpu": "1024"}, {"cpu": "125m", "memory": "0"}, {"cpu": "1000m", "memory": "512Mi"}),
        (
            {"resourceRequirements": [{"type": "GPU", "value": "2"}], "memory": 8},
            {"memory": None},
            {"memory": "8Mi"},
            {"memory": "8Mi", "nvidia.com/gpu": "2"},
        ),
    ],
)
def test_what_is_reserved_is_requested_and_what_is_limited_is_limited(definition, task, requests, limits):
    given = {name: value for name, value in ({"memory": "512"} | task).items() if value is not None}
    task = task_of(definition, **given) if "memory" in given else task_without_memory(definition, given)
    made = manifests.pod(task, OWNER, sleep_action=True)["spec"]["containers"][0]["resources"]

    assert made.get("requests") == requests
    assert made.get("limits") == limits


def task_without_memory(definition, given):
    """A task whose containers alone say how much memory they need, as on EC2."""
    return msgspec.structs.replace(task_of(definition, **given), memory=None)


def test_an_override_that_shrinks_the_task_shrinks_what_is_requested():
    task = msgspec.structs.replace(task_of({"cpu": 512}, cpu="1024"), cpu="256")
    made = manifests.pod(task, OWNER, sleep_action=True)["spec"]["containers"][0]["resources"]

    assert (made["requests"]["cpu"], made["limits"]["cpu"]) == ("250m", "250m")


def test_variables_are_left_as_they_are_and_those_of_ecs_are_added():
    made = container(
        {"environment": [{"name": "A", "value": "$(B) $$ $é"}, {"name": "AWS_REGION", "value": "x"}]}
    )

    assert made["env"] == [
        {"name": "AWS_REGION", "value": "x"},
        {"name": "AWS_DEFAULT_REGION", "value": "us-east-1"},
        {"name": "AWS_EXECUTION_ENV", "value": "AWS_ECS_FARGATE"},
        {"name": "A", "value": "$$(B) $$$$ $$é"},
        {"name": "KECS_TASK_ARN", "value": "arn:aws:ecs:us-east-1:123456789012:task/default/" + f"{1:032x}"},
        {"name": "KECS_CONTAINER_NAME", "value": "web"},
    ]


def test_secrets_are_in_a_secret_of_the_tasks_own_and_nowhere_else():
    definition = {"secrets": [{"name": "PASSWORD", "valueFrom": "db"}, {"name": "A B", "valueFrom": "ab"}]}
    task = task_of(definition, {"name": "Side", "secrets": [{"name": "PASSWORD", "valueFrom": "other"}]})
    secret = manifests.secret(task, OWNER)
    made = manifests.pod(task, OWNER, sleep_action=True)

    assert (secret["metadata"]["name"], secret["metadata"]["namespace"]) == (task.pod, task.namespace)
    values = {key: base64.b64decode(value).decode() for key, value in secret["data"].items()}
    for name, variable in (("web", "PASSWORD"), ("web", "A B")):
        env = next(it for it in made["spec"]["containers"][0]["env"] if it["name"] == variable)
        source = env["valueFrom"]["secretKeyRef"]
        assert source["name"] == task.pod
        assert values[source["key"]] == f"value of {variable}"
        assert source["key"].startswith(f"{name}.")
    assert len(values) == 3
    assert "value of" not in json.dumps(made)


def test_a_task_without_secrets_has_no_secret():
    assert manifests.secret(task_of({}), OWNER) is None


VOLUMES = [
    {"name": "Data"},
    {"name": "logs", "host": {"sourcePath": "/var/log"}},
    {"name": "cache", "dockerVolumeConfiguration": {"scope": "task"}},
]


def test_volumes_and_where_they_are_mounted():
    mounts = [
        {"sourceVolume": "Data", "containerPath": "/data"},
        {"sourceVolume": "logs", "containerPath": "/logs", "readOnly": True},
    ]
    made = pod(
        {"mountPoints": mounts},
        {
            "name": "b",
            "volumesFrom": [{"sourceContainer": "web", "readOnly": True}],
            "mountPoints": [{"sourceVolume": "cache", "containerPath": "/logs"}],
        },
        volumes=VOLUMES,
    )["spec"]
    data = made["volumes"][0]["name"]

    assert made["volumes"] == [
        {"name": data, "emptyDir": {}},
        {"name": "volume-logs", "hostPath": {"path": "/var/log"}},
        {"name": "volume-cache", "emptyDir": {}},
    ]
    assert made["containers"][0]["volumeMounts"] == [
        {"name": data, "mountPath": "/data"},
        {"name": "volume-logs", "mountPath": "/logs", "readOnly": True},
    ]
    assert made["containers"][1]["volumeMounts"] == [
        {"name": data, "mountPath": "/data", "readOnly": True},
        {"name": "volume-cache", "mountPath": "/logs"},
    ]
    assert data.startswith("volume-data-")


def test_memory_of_a_container_that_looks_like_a_disk():
    linux = {
        "tmpfs": [
            {"containerPath": "/run", "size": 64, "mountOptions": ["ro"]},
            {"containerPath": "/cache", "size": 8},
        ],
        "sharedMemorySize": 128,
    }
    made = pod({"linuxParameters": linux})["spec"]

    assert made["volumes"] == [
        {"name": "tmpfs-web-0", "emptyDir": {"medium": "Memory", "sizeLimit": "64Mi"}},
        {"name": "tmpfs-web-1", "emptyDir": {"medium": "Memory", "sizeLimit": "8Mi"}},
        {"name": "shm-web", "emptyDir": {"medium": "Memory", "sizeLimit": "128Mi"}},
    ]
    assert made["containers"][0]["volumeMounts"] == [
        {"name": "tmpfs-web-0", "mountPath": "/run", "readOnly": True},
        {"name": "tmpfs-web-1", "mountPath": "/cache"},
        {"name": "shm-web", "mountPath": "/dev/shm"},
    ]


PODS = {
    "every Pod": (
        {},
        {},
        {
            "restartPolicy": "Never",
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "terminationGracePeriodSeconds": 30,
            "initContainers": None,
            "volumes": None,
            "hostNetwork": None,
            "tolerations": [
                {
                    "key": "node.kubernetes.io/not-ready",
                    "operator": "Exists",
                    "effect": "NoExecute",
                    "tolerationSeconds": 10,
                },
                {
                    "key": "node.kubernetes.io/unreachable",
                    "operator": "Exists",
                    "effect": "NoExecute",
                    "tolerationSeconds": 10,
                },
            ],
        },
    ),
    "a stop that drains": ({**PORT, "stopTimeout": 7}, {}, {"terminationGracePeriodSeconds": 12}),
    "host names": (
        {
            "extraHosts": [
                {"hostname": "a", "ipAddress": "10.0.0.1"},
                {"hostname": "b", "ipAddress": "10.0.0.1"},
            ]
        },
        {},
        {"hostAliases": [{"ip": "10.0.0.1", "hostnames": ["a", "b"]}]},
    ),
    "name servers": (
        {"dnsServers": ["10.0.0.2"], "dnsSearchDomains": ["a.b"]},
        {},
        {"dnsPolicy": "None", "dnsConfig": {"nameservers": ["10.0.0.2"], "searches": ["a.b"]}},
    ),
    "search domains": (
        {"dnsSearchDomains": ["a.b"]},
        {},
        {"dnsPolicy": None, "dnsConfig": {"searches": ["a.b"]}},
    ),
    "more name servers than a resolver takes": (
        {"dnsServers": ["1.1.1.1", "1.1.1.2", "1.1.1.3", "1.1.1.4"]},
        {},
        {"dnsConfig": {"nameservers": ["1.1.1.1", "1.1.1.2", "1.1.1.3"]}},
    ),
    "hostname": ({"hostname": "web-1"}, {}, {"hostname": "web-1"}),
    "a host name that Kubernetes has not": ({"hostname": "Web_1"}, {}, {"hostname": None}),
    "systemControls": (
        {"systemControls": [{"namespace": "net.core.somaxconn", "value": "99"}]},
        {},
        {"securityContext": {"sysctls": [{"name": "net.core.somaxconn", "value": "99"}]}},
    ),
    "pidMode task": ({}, {"pidMode": "task"}, {"shareProcessNamespace": True, "hostPID": None}),
    "pidMode host": ({}, {"pidMode": "host"}, {"shareProcessNamespace": None, "hostPID": True}),
    "ipcMode host": ({}, {"ipcMode": "host"}, {"hostIPC": True}),
    "networkMode host": ({}, {"networkMode": "host"}, {"hostNetwork": True}),
    "an architecture": (
        {},
        {"runtimePlatform": {"cpuArchitecture": "ARM64", "operatingSystemFamily": "LINUX"}},
        {
            "affinity": {
                "nodeAffinity": {
                    "preferredDuringSchedulingIgnoredDuringExecution": [
                        {
                            "weight": 100,
                            "preference": {
                                "matchExpressions": [
                                    {"key": "kubernetes.io/arch", "operator": "In", "values": ["arm64"]}
                                ]
                            },
                        }
                    ]
                }
            }
        },
    ),
}


@pytest.mark.parametrize("case", PODS)
def test_a_setting_of_the_whole_pod_is_mapped_exactly(case):
    definition, members, expected = PODS[case]
    made = pod(definition, **members)["spec"]

    assert chosen(made, expected) == expected


def test_links_are_names_of_the_shared_network():
    made = pod(
        {"links": ["db:database", "Cache_1"]}, {"name": "db"}, {"name": "Cache_1"}, networkMode="bridge"
    )

    assert made["spec"]["hostAliases"] == [{"ip": "127.0.0.1", "hostnames": ["db", "database"]}]


@pytest.mark.parametrize(
    ("mode", "mapping", "expected"),
    [
        ("awsvpc", {"containerPort": 80, "hostPort": 80}, None),
        ("bridge", {"containerPort": 80, "hostPort": 8080}, 8080),
        ("bridge", {"containerPort": 80}, None),
        ("host", {"containerPort": 80}, 80),
    ],
)
def test_a_port_of_the_host_is_one_of_the_node(mode, mapping, expected):
    made = container({"portMappings": [mapping]}, networkMode=mode)

    assert made["ports"][0].get("hostPort") == expected


def test_docker_labels_are_annotations_where_they_can_be_and_change_none_of_ours():
    labels = {"com.example.team": "a", "not legal": "b", "kecs.dev/task-arn": "c", "x.kubernetes.io/y": "d"}
    made = pod({"dockerLabels": labels})["metadata"]["annotations"]

    assert made["com.example.team"] == "a"
    assert "not legal" not in made
    assert "x.kubernetes.io/y" not in made
    assert made["kecs.dev/task-arn"].startswith("arn:aws:ecs:")


def waits(name, condition):
    return {"dependsOn": [{"containerName": name, "condition": condition}]}


def test_what_others_wait_to_end_is_an_init_container():
    migrate = {
        "name": "migrate",
        "essential": False,
        "healthCheck": CHECK,
        "portMappings": [{"containerPort": 9}],
    }
    made = pod(waits("migrate", "SUCCESS") | PORT, migrate)["spec"]
    (init,) = made["initContainers"]

    assert init["name"] == "migrate"
    assert not init.keys() & {"restartPolicy", "readinessProbe", "startupProbe", "lifecycle"}
    assert [it["name"] for it in made["containers"]] == ["web"]


def test_what_others_wait_for_to_be_healthy_holds_them_back_by_a_startup_probe():
    db = {"name": "db", "healthCheck": CHECK, "portMappings": [{"containerPort": 5432}]}
    made = pod(waits("db", "HEALTHY") | PORT, db)["spec"]["initContainers"][0]

    assert made["restartPolicy"] == "Always"
    assert made["startupProbe"] == {**HEALTHY, "failureThreshold": NEVER}
    assert made["readinessProbe"] == HEALTHY
    assert made["lifecycle"] == {"preStop": {"sleep": {"seconds": 5}}}


def test_what_others_wait_for_to_start_holds_them_back_no_longer():
    db = {"name": "db", "healthCheck": CHECK, "portMappings": [{"containerPort": 5432}]}
    made = pod(waits("db", "START") | PORT, db)["spec"]["initContainers"][0]

    assert "startupProbe" not in made
    assert made["readinessProbe"] == HEALTHY


def test_a_container_that_may_end_is_not_probed_for_its_ports():
    made = container({}, {"name": "side", "essential": False, **PORT}, name="side")

    assert "readinessProbe" not in made


def test_a_stop_has_time_for_those_that_stop_one_after_the_other():
    db = {"name": "db", "stopTimeout": 20}
    made = pod({"stopTimeout": 10, **waits("db", "START"), **PORT}, db)["spec"]

    assert made["terminationGracePeriodSeconds"] == 5 + 10 + 20


def test_time_scale_shortens_checks_and_stops_to_whole_seconds():
    made = pod({"healthCheck": CHECK, "stopTimeout": 30, **PORT}, time_scale=0.01)["spec"]
    probe = made["containers"][0]["readinessProbe"]

    assert (probe["periodSeconds"], made["terminationGracePeriodSeconds"]) == (1, 1 + 5)


def test_before_kubernetes_1_30_a_stop_is_held_back_by_the_images_own_sleep():
    made = manifests.pod(task_of(PORT), OWNER, sleep_action=False)["spec"]["containers"][0]

    assert made["lifecycle"] == {"preStop": {"exec": {"command": ["sleep", "5"]}}}


def test_labels_and_annotations_say_all_that_is_needed_to_know_the_task_again():
    task = msgspec.structs.replace(
        task_of({"name": "Web_1"}),
        service="My_Service",
        started_by="ecs-svc/1234567890123456789",
        cluster="Prod",
    )
    made = manifests.pod(task, OWNER, sleep_action=True)
    labels, annotations = made["metadata"]["labels"], made["metadata"]["annotations"]

    assert labels["kecs.dev/instance-id"] == "0123456789abcdef"
    assert labels["kecs.dev/task-id"] == task.id
    assert labels["kecs.dev/deployment"] == "1234567890123456789"
    assert labels["kecs.dev/revision"] == "1"
    assert labels["kecs.dev/service"].startswith("my-service-")
    assert all(len(value) <= 63 for value in labels.values())
    assert annotations["kecs.dev/service"] == "My_Service"
    assert annotations["kecs.dev/cluster"] == "Prod"
    assert annotations["kecs.dev/task-arn"] == task.arn
    (note,) = json.loads(annotations["kecs.dev/containers"])
    assert note["name"] == "Web_1"
    assert note["container"] == made["spec"]["containers"][0]["name"]


def test_a_standalone_task_has_neither_service_nor_deployment():
    labels = manifests.pod(task_of({}), OWNER, sleep_action=True)["metadata"]["labels"]

    assert not labels.keys() & {"kecs.dev/service", "kecs.dev/deployment"}


PUBLIC = Exposure(
    namespace="ns",
    name="web",
    region="us-east-1",
    cluster="Prod",
    service="web",
    task_id=None,
    ports=[ExposedPort(container_port=80, node_port=30080), ExposedPort(container_port=53, protocol="udp")],
)


def test_a_public_service_has_node_ports_and_selects_its_pods_by_labels_that_they_have():
    made = manifests.service(PUBLIC, OWNER)
    task = msgspec.structs.replace(task_of(PORT), cluster="Prod", service="web", started_by="ecs-svc/1")
    labels = manifests.pod(task, OWNER, sleep_action=True)["metadata"]["labels"]

    assert made["spec"]["type"] == "NodePort"
    assert made["spec"]["ports"] == [
        {"name": "tcp-80", "port": 80, "protocol": "TCP", "targetPort": "tcp-80", "nodePort": 30080},
        {"name": "udp-53", "port": 53, "protocol": "UDP", "targetPort": "udp-53"},
    ]
    assert made["spec"]["selector"].items() <= labels.items()
    other = msgspec.structs.replace(task, service="other")
    assert (
        not made["spec"]["selector"].items()
        <= manifests.pod(other, OWNER, sleep_action=True)["metadata"]["labels"].items()
    )


def test_a_service_that_is_not_public_is_reached_from_within_the_cluster_only():
    private = msgspec.structs.replace(PUBLIC, ports=[ExposedPort(container_port=80)])
    made = manifests.service(private, OWNER)["spec"]

    assert made["type"] == "ClusterIP"
    assert "nodePort" not in made["ports"][0]


@pytest.mark.parametrize(
    "exposure", [PUBLIC, msgspec.structs.replace(PUBLIC, name="task-1", service=None, task_id="1" * 32)]
)
def test_an_exposure_is_read_back_from_its_service(exposure):
    assert manifests.exposure_of(manifests.service(exposure, OWNER)) == exposure


def test_the_service_of_a_task_selects_that_task_alone():
    exposure = msgspec.structs.replace(PUBLIC, name="task-1", service=None, task_id="1" * 32)

    assert manifests.service(exposure, OWNER)["spec"]["selector"] == {
        "kecs.dev/instance-id": OWNER.instance_id,
        "kecs.dev/task-id": "1" * 32,
    }


def test_what_another_made_is_no_exposure():
    assert (
        manifests.exposure_of({"metadata": {"name": "kubernetes", "namespace": "default"}, "spec": {}})
        is None
    )


def test_an_object_of_another_instance_of_the_same_name_is_not_ours():
    made = manifests.namespace("kecs-default-prod-1", OWNER, "us-east-1", "Prod")

    assert manifests.owned(made, OWNER)
    assert not manifests.owned(made, Owner("default", "ffffffffffffffff"))
    assert not manifests.owned({"metadata": {"name": "kube-system"}}, OWNER)
    assert manifests.selector(OWNER).items() <= made["metadata"]["labels"].items()
    assert made["metadata"]["annotations"] == {"kecs.dev/region": "us-east-1", "kecs.dev/cluster": "Prod"}
