"""What RegisterTaskDefinition refuses on a runtime of Pods, and takes on one of processes."""

import pytest

from kecs.ecs import task_definitions
from kecs.ecs.context import RuntimeTraits
from kecs.ecs.errors import ClientException
from kecs.ecs.pod_rules import user_ids

from .shapes import Ecs


def register(runtime, *containers, **members):
    ecs = Ecs()
    ecs.runtime = RuntimeTraits(name=runtime, instance_id="i")
    return ecs.call(
        task_definitions.register_task_definition,
        family="web",
        containerDefinitions=[{"image": "web:1", "memory": 64, **each} for each in containers],
        **members,
    )


def waits(name, condition):
    return [{"containerName": name, "condition": condition}]


REFUSED = {
    "START on a non-essential container": (
        [{"name": "web", "dependsOn": waits("log", "START")}, {"name": "log", "essential": False}],
        (
            "'dependsOn' setting: this order of containers cannot be kept on Kubernetes: others wait for "
            "container 'log' with the condition START, and it is not essential."
        ),
    ),
    "HEALTHY on a non-essential container": (
        [
            {"name": "web", "dependsOn": waits("log", "HEALTHY")},
            {"name": "log", "essential": False, "healthCheck": {"command": ["CMD", "true"]}},
        ],
        "'log' with the condition HEALTHY, and it is not essential.",
    ),
    "a task that would end with what is not essential": (
        [{"name": "db"}, {"name": "seed", "essential": False, "dependsOn": waits("db", "START")}],
        "none of these is essential",
    ),
    "one port of two containers": (
        [
            {"name": "web", "portMappings": [{"containerPort": 80}]},
            {"name": "admin", "portMappings": [{"containerPort": 80, "hostPort": 8080}]},
        ],
        (
            "'containerPort' setting: containers 'web' and 'admin' share one network on Kubernetes, and both "
            "have port 80/tcp."
        ),
    ),
    "a user's name": (
        [{"name": "web", "user": "nginx"}],
        "'user' setting for container 'web': 'nginx'. Kubernetes runs containers as numbers",
    ),
    "a group's name": ([{"name": "web", "user": "101:nginx"}], "'101:nginx'"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_a_pod_would_make_something_else_of_is_refused(case):
    containers, message = REFUSED[case]

    with pytest.raises(ClientException) as refused:
        register("kubernetes", *containers)

    assert message in refused.value.message


@pytest.mark.parametrize("case", REFUSED)
def test_a_runtime_of_processes_takes_it(case):
    assert register("local", *REFUSED[case][0])["taskDefinition"]["revision"] == 1


def test_what_a_pod_can_be_is_taken():
    web = {
        "name": "web",
        "user": "1000:1000",
        "portMappings": [{"containerPort": 80}],
        "dependsOn": [*waits("db", "HEALTHY"), *waits("migrate", "SUCCESS")],
    }
    db = {
        "name": "db",
        "portMappings": [{"containerPort": 5432}],
        "healthCheck": {"command": ["CMD", "true"]},
    }
    migrate = {
        "name": "migrate",
        "essential": False,
        "portMappings": [{"containerPort": 80, "protocol": "udp"}],
    }

    assert register("kubernetes", web, db, migrate)["taskDefinition"]["revision"] == 1


@pytest.mark.parametrize(
    ("user", "expected"),
    [
        ("0", (0, None)),
        ("1000", (1000, None)),
        ("1000:2000", (1000, 2000)),
        ("root", (0, None)),
        ("root:root", (0, 0)),
        ("nginx", None),
        ("1000:staff", None),
        ("1000:", None),
        (":1000", None),
        ("٣", None),
        ("-1", None),
    ],
)
def test_a_user_is_numbers_or_root(user, expected):
    assert user_ids(user) == expected
