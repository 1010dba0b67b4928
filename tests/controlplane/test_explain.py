"""Explanations: the facts that a person needs, from rows alone."""

import msgspec
import pytest
from tests.controlplane.world import (
    PRIVATE,
    REGION,
    container_definition,
    deploy,
    service,
    state_of,
    task,
    task_definition,
)

from kecs.controlplane.explain import explain_service, explain_task
from kecs.controlplane.explain_tags import explain_tags
from kecs.ecs.context import RuntimeTraits
from kecs.ecs.model import Container, Node, NodePort, Service, ServiceEvent, TaskPort
from kecs.errors import ExitCode, KecsError


def service_of(*rows, name="web"):
    return explain_service(state_of(*rows), REGION, "default", name)


def deaf(**members):
    """A task whose process listens on 3000 instead of its KECS port."""
    return task(
        service=members.pop("service", "web"),
        containers=[Container(name="web", id="c", image="web", last_status="RUNNING", listening=[3000])],
        ports=[TaskPort(container="web", container_port=80, host_port=29999)],
        **members,
    )


def test_what_listens_instead_of_the_mapped_port_is_named():
    told = service_of(task_definition(), service(), deaf())

    fact = next(fact for fact in told.facts if "does not listen" in fact)
    assert fact.startswith("container web does not listen on 80 (it listens on 3000)")
    assert "29999" in fact
    assert any("PORT" in advice for advice in told.advice)


def test_a_private_service_is_told_with_the_command_that_opens_it():
    told = service_of(task_definition(), service(network=PRIVATE))

    assert any("assignPublicIp is not ENABLED" in fact for fact in told.facts)
    assert any(
        "aws ecs update-service --cluster default --service web --network-configuration "
        "'awsvpcConfiguration={subnets=[subnet-1],assignPublicIp=ENABLED}'" in advice
        for advice in told.advice
    )


def test_stopped_tasks_are_named_with_their_reasons_newest_first():
    stopped = [
        task(
            service="web",
            status="STOPPED",
            stopped_at=float(at),
            stopped_reason=f"reason {at}",
            containers=[Container(name="web", id="c", image="i", last_status="STOPPED", exit_code=3)],
        )
        for at in (1, 2, 3, 4)
    ]
    told = service_of(task_definition(), service(), *stopped)

    facts = [fact for fact in told.facts if "has stopped" in fact]
    assert [fact.split(": ")[1].split(" (")[0] for fact in facts] == ["reason 4", "reason 3", "reason 2"]
    assert "web ended with exit code 3" in facts[0]


def test_a_rollback_of_the_circuit_breaker_is_told():
    broken = service(revision=2)
    failed = msgspec.structs.replace(broken.deployments[0], rollout_state="FAILED", failed_tasks=3)
    row = msgspec.structs.replace(broken, deployments=[failed])
    row = deploy(msgspec.structs.replace(row, task_definition=row.task_definition[:-1] + "1"))
    told = service_of(task_definition(), task_definition(revision=2), row)

    assert any("circuit breaker gave up" in fact and "rolled back to web:1" in fact for fact in told.facts)


def test_what_has_no_effect_here_is_named_with_the_reason():
    container = container_definition(
        cpu=256,
        memory=512,
        logConfiguration={"logDriver": "awslogs"},
        mountPoints=[{"sourceVolume": "v"}],
        ulimits=[],
    )
    row = service(settings={"loadBalancers": [{"targetGroupArn": "t"}], "serviceRegistries": []})
    told = service_of(task_definition(containers=[container], volumes=[{"name": "v"}], cpu="256"), row)

    members = {sentence.split(":")[0] for sentence in told.without_effect}
    assert members >= {
        "loadBalancers",
        "subnets",
        "volumes",
        "cpu",
        "image of container web",
        "cpu of container web",
        "memory of container web",
        "logConfiguration of container web",
        "mountPoints of container web",
    }
    assert not any("ulimits" in member or "serviceRegistries" in member for member in members)


def test_a_definition_that_sets_port_itself_is_told():
    container = container_definition(environment=[{"name": "PORT", "value": "3000"}])
    told = service_of(task_definition(containers=[container]), service(), deaf())

    assert any("sets PORT to 3000 itself" in fact for fact in told.facts)


def test_a_task_is_explained_by_a_prefix_of_its_id():
    one = deaf(service=None, id="0123456789abcdef" * 2)
    told = explain_task(state_of(task_definition(), one), REGION, "default", "01234567")

    assert told.title.endswith(f"task default/{one.id} in {REGION}")
    assert told.facts[0] == "the task is RUNNING"
    assert any(fact.startswith("container web does not listen on 80") for fact in told.facts)


def test_a_stopped_task_says_why():
    one = task(
        status="STOPPED",
        stop_code="TaskFailedToStart",
        stopped_reason="ResourceInitializationError: no",
        containers=[
            Container(
                name="web", id="c", image="i", last_status="STOPPED", reason="CannotStartContainerError: none"
            )
        ],
    )
    told = explain_task(state_of(task_definition(), one), REGION, "default", one.id)

    assert told.facts[0] == "the task is STOPPED (TaskFailedToStart): ResourceInitializationError: no"
    assert "container web is STOPPED (CannotStartContainerError: none)" in told.facts


@pytest.mark.parametrize(
    ("region", "cluster", "hint"),
    [
        ("eu-west-1", "default", "add `--region us-east-1`"),
        (REGION, "other", "there is `default/web`"),
        (REGION, "default", "kecs ps"),
    ],
)
def test_what_is_not_there_is_not_found_and_says_where_it_is(region, cluster, hint):
    name = "web" if hint != "kecs ps" else "nothing"
    with pytest.raises(KecsError) as told:
        explain_service(state_of(task_definition(), service()), region, cluster, name)

    assert told.value.exit_code == ExitCode.NOT_FOUND
    assert hint in told.value.hint


def test_an_ambiguous_prefix_is_refused():
    rows = [task(id="00000000" + digit * 24) for digit in "12"]
    with pytest.raises(KecsError, match="begins the ids of 2 tasks"):
        explain_task(state_of(*rows), REGION, "default", "00000000")


def test_a_service_without_wanted_tasks_says_how_to_start_them():
    told = service_of(task_definition(), service(desired=0))

    assert any("--desired-count 1" in advice for advice in told.advice)
    assert isinstance(service(), Service)


POD = {"namespace": "kecs-dev", "pod": "web-1"}


def pod(**members):
    """A task that is a pod whose port answers."""
    ready = members.pop("ready", True)
    return task(
        service="web",
        containers=[Container(name="web", id="c", image="web", last_status="RUNNING")],
        ports=[TaskPort(container="web", container_port=80, host="10.0.0.7", ready=ready)],
        **(POD | members),
    )


def node_port(**members):
    known = {"region": REGION, "cluster": "default", "service": "web", "container_port": 80, "port": 30080}
    return NodePort(**(known | members))


NODE = Node(name="one", addresses=["192.0.2.1", "2001:db8::1"], ready=True)


def test_a_pod_without_a_place_is_told_with_what_helps():
    one = pod(status="PENDING", waiting="0/1 nodes are available: 1 Insufficient cpu.")
    for told in (
        service_of(task_definition(), service(), one),
        explain_task(state_of(task_definition(), one), REGION, "default", one.id),
    ):
        assert any("has no place to run yet: 0/1 nodes are available" in fact for fact in told.facts)
        assert any("kubectl --namespace kecs-dev describe pod web-1" in each for each in told.advice)


def test_a_port_of_a_pod_that_does_not_answer_is_told_without_local_ports():
    definition = task_definition(
        containers=[container_definition(environment=[{"name": "PORT", "value": "1"}])]
    )
    told = service_of(definition, service(), pod(ready=False))
    assert any("does not answer on 80: its readiness probe has not passed" in fact for fact in told.facts)
    assert not any("PORT" in each for each in (*told.facts, *told.advice))
    assert any("0.0.0.0" in each for each in told.advice)


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ([node_port(applied=True), NODE], "port 80/tcp has node port 30080 on 192.0.2.1, 2001:db8::1"),
        ([node_port(applied=True)], "port 80/tcp has node port 30080, and no node is ready"),
        ([node_port(), NODE], "is to have node port 30080, which the cluster does not have yet"),
    ],
)
def test_node_ports_are_told_as_they_are(rows, says):
    told = service_of(task_definition(), service(), pod(), *rows)
    assert any(says in fact for fact in told.facts)


def test_a_task_of_pods_is_told_with_its_pod_and_its_ways():
    one = pod()
    alone = msgspec.structs.replace(one, service=None)
    mine = node_port(service="", task_id=one.id, applied=True)
    told = explain_task(state_of(task_definition(), alone, mine, NODE), REGION, "default", one.id)
    assert "its pod is kecs-dev/web-1" in told.facts
    assert any("node port 30080 on 192.0.2.1" in fact for fact in told.facts)
    assert "a tunnel to the pod reaches port 80" in told.facts
    assert not any("answers on" in fact for fact in told.facts)


@pytest.mark.parametrize(
    ("row", "says"),
    [
        (node_port(applied=True), "port 80/tcp is published on 127.0.0.1:30080"),
        (
            node_port(port=31234, applied=True),
            "port 80/tcp is not published: node port 31234 is beyond the published ones, 30000-30099",
        ),
    ],
)
def test_it_is_told_what_is_published_on_this_machine(row, says):
    rows = state_of(task_definition(), service(), pod(), NODE, row)
    traits = RuntimeTraits(name="k3d", published=range(30000, 30100))
    assert says in explain_service(rows, REGION, "default", "web", traits=traits).facts
    assert not any("published" in fact for fact in explain_service(rows, REGION, "default", "web").facts)


def test_what_stands_in_no_row_comes_right_after_the_standing():
    told = explain_service(
        state_of(task_definition(), service()), REGION, "default", "web", troubles=lambda row: [row.name]
    )
    assert told.facts[1] == "web"


def test_the_timeline_tells_of_events_deployments_and_tasks_oldest_first():
    row = msgspec.structs.replace(
        service(),
        created_at=1.0,
        events=[
            ServiceEvent(id="3", created_at=30.0, message="(service web) has reached a steady state."),
            ServiceEvent(id="2", created_at=20.0, message="(service web) has started 1 tasks: (task 1)."),
        ],
    )
    began = msgspec.structs.replace(row.deployments[0], created_at=10.0)
    one = task(
        service="web",
        status="STOPPED",
        created_at=20.0,
        started_at=21.0,
        stopping_at=40.0,
        stopped_at=41.0,
        stopped_reason="scaled in",
        containers=[Container(name="web", id="c", image="i", last_status="STOPPED", exit_code=3)],
    )
    told = service_of(task_definition(), msgspec.structs.replace(row, deployments=[began]), one)

    name = f"task {one.id[:8]}"
    assert [(event.time, event.source, event.text) for event in told.timeline] == [
        (10.0, "service", f"deployment {began.id} of web:1 began"),
        (20.0, name, "was made of web:1"),
        (21.0, name, "is RUNNING"),
        (30.0, "service", "has reached a steady state."),
        (40.0, name, "is to stop: scaled in"),
        (41.0, name, "has stopped: scaled in (web ended with exit code 3)"),
    ]


def test_a_long_timeline_ends_with_the_newest():
    stopped = [task(service="web", status="STOPPED", created_at=float(at)) for at in range(100)]
    told = service_of(task_definition(), service(), *stopped)
    assert [event.time for event in told.timeline][:-1] == [float(at) for at in range(51, 100)]


@pytest.mark.parametrize(
    ("reason", "helps"),
    [
        ("CannotPullContainerError: no such image", "may pull it"),
        ("CannotStartContainerError: container web: no such file", "`entryPoint` and `command`"),
        ("OutOfMemoryError: Container killed due to memory usage", "more `memory`"),
    ],
)
def test_a_reason_has_its_advice_once(reason, helps):
    ended = [Container(name="web", id="c", image="i", last_status="STOPPED", reason=reason)]
    tasks = [task(service="web", status="STOPPED", containers=ended) for _ in range(2)]
    told = service_of(task_definition(), service(), *tasks)
    assert len([advice for advice in told.advice if helps in advice]) == 1


def test_what_opens_a_port_is_told_apart():
    assert service_of(task_definition(), service()).opens.startswith("`kecs port-forward start service")
    assert service_of(task_definition(), service(network=PRIVATE)).opens is None


WANTED = {"env": "dev", "app": "api"}


def tagged(*rows, tags=None):
    return explain_tags(state_of(*rows), REGION, "default", tags or WANTED)


def test_tasks_by_tags_are_told_the_newest_first():
    old, new = task(tags=WANTED, created_at=1.0), task(tags=WANTED | {"more": "1"}, created_at=2.0)
    told = tagged(old, new, task(tags={"env": "dev"}))
    assert told.facts[0] == (
        f"2 tasks match, the newest first: {new.id[:8]} (RUNNING), {old.id[:8]} (RUNNING)"
    )


def test_tags_that_no_task_has_are_told_with_those_that_exist():
    gone = task(tags=WANTED, status="STOPPED", stopped_reason="it was time", stopped_at=1.0)
    told = tagged(gone, task(tags={"env": "prod"}))
    assert told.facts[0] == "no task in the cluster default has the tags env=dev, app=api"
    assert told.facts[1] == "the tasks there have these tags: env=prod"
    assert "has stopped: it was time" in told.facts[2]
    assert "--tags key=env,value=dev key=app,value=api" in told.advice[0]
    assert "the task there has no tags" in tagged(task()).facts
    assert "the 2 tasks there have no tags" in tagged(task(), task()).facts
    assert tagged().facts == ["no task in the cluster default has the tags env=dev, app=api"]


def test_a_matching_task_that_no_forward_can_reach_is_told_so():
    told = tagged(deaf(tags=WANTED, public=False))
    assert any("does not listen on 80 (it listens on 3000)" in fact for fact in told.facts)
    assert any("assignPublicIp is not ENABLED" in fact for fact in told.facts)
    assert any("variable PORT" in advice for advice in told.advice)
