"""What a task definition says is what the containers of a real pod find, see and are."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest
from botocore.exceptions import ClientError
from tests.cluster import target, tasks
from tests.cluster.harness import images
from tests.cluster.tasks import depends, exits, shell
from tests.process.harness import until

LASTS = "trap exit TERM; sleep 600 & wait"
"""What a shell does until it is told to stop; as process 1 it would not hear of it otherwise."""
ENTRY = "kecs.test/entry:1"
CHECKED = {"interval": 5, "timeout": 2, "retries": 3}
SHARED = {"mountPoints": [{"sourceVolume": "shared", "containerPath": "/shared"}]}


@pytest.fixture(scope="module")
def home(cluster):
    """A home with an instance whose time goes five times as fast."""
    with target.visiting(cluster, KECS_TIME_SCALE="0.2") as one:
        target.start(one, cluster)
        yield one


def test_entry_point_and_command_replace_those_of_the_image_as_docker_does(home, own, tmp_path):
    """The image's entry point is `echo entry`, its command `command`."""
    own.load(
        images.program_image(
            tmp_path / "entry.tar",
            ENTRY,
            binaries=["echo"],
            entrypoint=["/usr/bin/echo", "entry"],
            command=["command"],
        )
    )
    cases = {
        "neither": {},
        "command": {"command": ["mine"]},
        "entry": {"entryPoint": ["/usr/bin/echo", "other"]},
        "both": {"entryPoint": ["/usr/bin/echo", "other"], "command": ["mine"]},
        "none": {"entryPoint": [""], "command": ["/usr/bin/echo", "mine alone"]},
    }
    containers = [{"name": name, "image": ENTRY, "essential": False, **said} for name, said in cases.items()]
    last = shell("true", dependsOn=depends(**dict.fromkeys(cases, "SUCCESS")))
    arn = tasks.run(home, *containers, last)

    assert tasks.stopped(home, arn)["stopCode"] == "EssentialContainerExited"
    assert {name: tasks.said(home, arn, name) for name in cases} == {
        "neither": ["entry command"],
        "command": ["entry mine"],
        "entry": ["other"],
        "both": ["other mine"],
        "none": ["mine alone"],
    }


def test_variables_and_commands_are_what_they_say_whatever_kubernetes_would_expand(home):
    variables = {"ODD": "$(PLAIN) $$(PLAIN) $$ ${PLAIN}", "PLAIN": "plain"}
    arn = tasks.run(
        home,
        shell(
            'env | grep ^ODD=; echo $(echo $PLAIN); echo "$KECS_TASK_ARN"; env | grep -c _SERVICE_HOST',
            environment=[{"name": name, "value": value} for name, value in variables.items()],
        ),
    )
    tasks.stopped(home, arn)

    # No variables of Services that happen to be there, apart from the cluster's own.
    assert tasks.said(home, arn) == [f"ODD={variables['ODD']}", "plain", arn, "1"]


def test_depends_on_keeps_the_order(home):
    """first SUCCESS, then second COMPLETE, then db HEALTHY, then proxy START, then main."""
    healthy = (
        "test -e /shared/up && (! mkdir /shared/said 2> /dev/null || echo db is healthy >> /shared/order)"
    )
    arn = tasks.run(
        home,
        shell(
            "cat /shared/order; echo main began",
            dependsOn=depends(proxy="START"),
            **SHARED,
        ),
        shell(
            f"echo proxy began >> /shared/order; {LASTS}",
            "proxy",
            dependsOn=depends(db="HEALTHY"),
            **SHARED,
        ),
        shell(
            f"echo db began >> /shared/order; sleep 1; touch /shared/up; {LASTS}",
            "db",
            dependsOn=depends(second="COMPLETE"),
            healthCheck={"command": ["CMD-SHELL", healthy], **CHECKED},
            **SHARED,
        ),
        shell(
            "echo second began >> /shared/order",
            "second",
            essential=False,
            dependsOn=depends(first="SUCCESS"),
            **SHARED,
        ),
        shell(
            "echo first began >> /shared/order; sleep 0.3; echo first ended >> /shared/order",
            "first",
            essential=False,
            **SHARED,
        ),
        volumes=[{"name": "shared"}],
    )
    end = tasks.stopped(home, arn)

    assert tasks.said(home, arn) == [
        "first began",
        "first ended",
        "second began",
        "db began",
        "db is healthy",
        "proxy began",
        "main began",
    ]
    assert (exits(end)["main"], end["stopCode"]) == (0, "EssentialContainerExited")


def test_a_dependency_that_fails_keeps_the_task_from_starting(home):
    failing = {
        condition: tasks.run(
            home,
            shell("exit 3", "first", essential=False),
            shell("sleep 600", dependsOn=depends(first=condition)),
        )
        for condition in ("SUCCESS", "COMPLETE")
    }
    # ECS would go on after COMPLETE; a pod does not, and says so.
    why = {"SUCCESS": "as dependency did not exit successfully", "COMPLETE": "on Kubernetes it must with 0"}
    for condition, arn in failing.items():
        end = tasks.stopped(home, arn)
        assert end["stopCode"] == "TaskFailedToStart"
        assert exits(end) == {"first": 3, "main": None}
        assert why[condition] in tasks.reasons(end)["main"]


def test_the_first_end_of_a_sidecar_ends_the_task_with_its_exit_code(home):
    arn = tasks.run(
        home,
        shell("sleep 1; exit 5", "db"),
        shell("trap 'exit 9' TERM; sleep 600 & wait", dependsOn=depends(db="START")),
    )
    end = tasks.stopped(home, arn)

    assert (end["stopCode"], end["stoppedReason"]) == (
        "EssentialContainerExited",
        "Essential container in task exited",
    )
    assert exits(end) == {"db": 5, "main": 9}


REFUSED = {
    "START on a non-essential container": (
        [shell("", "side", essential=False), shell("", dependsOn=depends(side="START"))],
        "others wait for container 'side' with the condition START, and it is not essential",
    ),
    "HEALTHY on a non-essential container": (
        [
            shell("", "side", essential=False, healthCheck={"command": ["CMD", "true"]}),
            shell("", dependsOn=depends(side="HEALTHY")),
        ],
        "others wait for container 'side' with the condition HEALTHY, and it is not essential",
    ),
    "a user by name": ([shell("", user="www-data")], "use 'uid' or 'uid:gid'"),
    "one port of two containers": (
        [
            shell("", "one", portMappings=[{"containerPort": 80}]),
            shell("", "two", portMappings=[{"containerPort": 80}]),
        ],
        "both have port 80/tcp",
    ),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_a_pod_cannot_be_is_refused_at_registration(home, what):
    containers, why = REFUSED[what]
    with pytest.raises(ClientError, match=why) as refused:
        tasks.define(home, *containers)
    assert refused.value.response["Error"]["Code"] == "ClientException"


def test_secrets_reach_the_process_and_nobody_who_reads_pods(home, kubectl):
    """They are in a Kubernetes Secret, and that goes with the task."""
    home.run("secrets", "set", "db/password", "hunter2")
    home.run("secrets", "set", "config", '{"user": "amy"}')
    where = "arn:aws:{}:us-east-1:123456789012:{}"
    arn = tasks.run(
        home,
        shell(
            f"echo $PASSWORD $DBUSER; {LASTS}",
            secrets=[
                {"name": "PASSWORD", "valueFrom": where.format("ssm", "parameter/db/password")},
                {
                    "name": "DBUSER",
                    "valueFrom": where.format("secretsmanager", "secret:config-a1b2c3:user::"),
                },
            ],
        ),
    )
    tasks.running(home, arn)
    until(lambda: tasks.said(home, arn) == ["hunter2 amy"], "the process has them")
    shown = kubectl("get", "pod", "--all-namespaces", "-o", "yaml")
    assert tasks.id_of(arn) in shown
    for value in (b"hunter2", b"amy"):
        assert value.decode() not in shown
        assert base64.b64encode(value).decode() not in shown
    (secret,) = tasks.objects(kubectl, "secrets", arn)
    assert secret["metadata"]["name"] == tasks.pod(kubectl, arn)["metadata"]["name"]

    home.aws().stop_task(task=arn)
    tasks.stopped(home, arn)
    assert tasks.objects(kubectl, "secrets", arn) == []


def test_a_missing_secret_is_a_resource_initialization_error(home):
    missing = {"name": "X", "valueFrom": "arn:aws:ssm:us-east-1:123456789012:parameter/none"}
    end = tasks.stopped(home, tasks.run(home, shell("true", secrets=[missing])))

    assert end["stopCode"] == "TaskFailedToStart"
    assert end["stoppedReason"].startswith("ResourceInitializationError")


def test_user_folder_capabilities_and_file_systems_are_those_of_the_definition(home):
    arn = tasks.run(
        home,
        shell(
            "grep CapEff /proc/self/status; echo $(id -u); touch /made && echo root is writable",
            "admin",
            essential=False,
            linuxParameters={"capabilities": {"add": ["NET_ADMIN"], "drop": ["CHOWN"]}},
        ),
        shell(
            """echo $(id -u):$(id -g) in $(pwd)
            touch /made 2> /dev/null || echo root is read-only
            touch /scratch/made && grep ' /scratch ' /proc/mounts | cut -d ' ' -f 3
            df -m /dev/shm | tail -1 | awk '{print $2}'""",
            user="1234:2345",
            workingDirectory="/work",
            readonlyRootFilesystem=True,
            linuxParameters={"tmpfs": [{"containerPath": "/scratch", "size": 16}], "sharedMemorySize": 32},
            dependsOn=depends(admin="SUCCESS"),
        ),
    )
    tasks.stopped(home, arn)

    capabilities, user, root = tasks.said(home, arn, "admin")
    effective = int(capabilities.partition(":")[2], 16)
    # Bits of linux/capability.h: CHOWN is 0, KILL (one of Docker's default) 5, NET_ADMIN 12.
    assert [effective >> bit & 1 for bit in (0, 5, 12)] == [0, 1, 1]
    assert (user, root) == ("0", "root is writable")
    assert tasks.said(home, arn) == ["1234:2345 in /work", "root is read-only", "tmpfs", "32"]


def test_privileged_has_every_capability_and_the_nodes_devices(home, own):
    assert own.nodes
    look = "grep CapEff /proc/self/status; ls /dev | grep -c kmsg || true"
    arn = tasks.run(home, shell(look, "plain", essential=False), shell(
        look, privileged=True, dependsOn=depends(plain="COMPLETE"),
    ))  # fmt: skip
    end = tasks.stopped(home, arn)
    assert end["stopCode"] == "EssentialContainerExited", end["stoppedReason"]

    plain, capable = (
        (int(mask.partition(":")[2], 16), devices)
        for mask, devices in (tasks.said(home, arn, "plain"), tasks.said(home, arn))
    )
    # All that there is to be had: a container runtime gives away no more than it has.
    bound = next(line for line in Path("/proc/self/status").read_text().splitlines() if "CapBnd" in line)
    assert capable == (int(bound.partition(":")[2], 16), "1")
    assert plain[0] < capable[0]
    assert plain[1] == "0"


def test_a_host_volume_is_the_nodes_own_folder_and_may_be_read_only(home, own, tmp_path):
    """The nodes of this cluster have this computer's files."""
    assert own.nodes
    (tmp_path / "given").write_text("by the host\n")
    arn = tasks.run(
        home,
        shell(
            "cat /host/given; echo by the task > /host/made; touch /fixed/made 2> /dev/null || echo fixed",
            mountPoints=[
                {"sourceVolume": "Host_1", "containerPath": "/host"},
                {"sourceVolume": "Host_1", "containerPath": "/fixed", "readOnly": True},
            ],
        ),
        volumes=[{"name": "Host_1", "host": {"sourcePath": str(tmp_path)}}],
    )
    tasks.stopped(home, arn)

    assert tasks.said(home, arn) == ["by the host", "fixed"]
    assert (tmp_path / "made").read_text() == "by the task\n"
