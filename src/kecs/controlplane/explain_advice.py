"""What `kecs explain` advises: each cause has the command that helps. Pure.

Called by `kecs.controlplane.explain` and `explain_tags`. What opens a port is said apart (`Explain.opens`),
since the command line knows whether a forward is there already.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from kecs.controlplane import explain_pods
from kecs.controlplane.explain_words import exits_of, newest_stopped, unready
from kecs.ecs.model import Service, Task

CANNOT = {
    "CannotPullContainerError": (
        "see that the image's name is right and that the cluster may pull it: `docker pull IMAGE`, or an "
        "imagePullSecret of the namespace's default service account; on k3d `kecs image import IMAGE` brings "
        "one that only Docker on this machine has"
    ),
    "CannotStartContainerError": (
        "see that the program that `entryPoint` and `command` name exists and may be run, and that "
        "`workingDirectory` exists; then register the task definition again"
    ),
    "OutOfMemoryError": "give the container more `memory`, then register the task definition again",
}
"""Words of a stop reason, and what helps."""


def for_service(service: Service, tasks: list[Task]) -> Iterator[str]:
    """Advise on a service with these tasks."""
    where = f"{service.cluster}/{service.name}"
    if service.status != "ACTIVE":
        yield (
            f"create it again by `aws ecs create-service --cluster {service.cluster} --service-name "
            f"{service.name} …`, or stop the forwards to it"
        )
        return
    if not service.public:
        yield make_public(service)
    yield from for_ports(tasks)
    yield from for_failures(tasks)
    if any(each.rollout_state == "FAILED" for each in (*service.deployments, *service.history)):
        yield (
            "mend the task definition, register it, and deploy it by `aws ecs update-service --cluster "
            f"{service.cluster} --service {service.name} --task-definition FAMILY`"
        )
    if any(task.last_status == "STOPPED" for task in tasks):
        yield f"`kecs logs {where}` shows what the tasks wrote"
    if service.desired_count == 0:
        yield (
            "nothing is wanted; start tasks by "
            f"`aws ecs update-service --cluster {service.cluster} --service {service.name} --desired-count 1`"
        )


def for_tasks(tasks: list[Task]) -> Iterator[str]:
    """Advise on tasks by themselves."""
    yield from for_ports(tasks)
    yield from for_failures(tasks)
    for task in tasks:
        yield f"`kecs logs {task.cluster}/{task.id[:8]}` shows what it wrote"


def for_ports(tasks: list[Task]) -> Iterator[str]:
    """Advise where nothing listens on a mapped port, and where a pod has no place."""
    pods = [task for task in tasks if task.pod is not None]
    yield from explain_pods.advice(pods, unready=any(True for task in pods for _ in unready(task)))
    if any(True for task in tasks if task.pod is None for _ in unready(task)):
        yield "let the process listen on the number in its variable PORT (or PORT_<containerPort>)"


def for_failures(tasks: Iterable[Task]) -> Iterator[str]:
    """Advise by the reasons of the tasks that stopped last, each reason once."""
    reasons = " ".join(f"{task.stopped_reason} {exits_of(task)}" for task in newest_stopped(tasks))
    yield from (helps for word, helps in CANNOT.items() if word in reasons)


def make_public(service: Service) -> str:
    """Return the advice that gives a service `assignPublicIp: ENABLED`."""
    awsvpc = (service.network_configuration or {}).get("awsvpcConfiguration")
    if not awsvpc:
        return "use a task definition with networkMode awsvpc, and create the service with assignPublicIp"
    subnets = ",".join(awsvpc.get("subnets", []))
    groups = awsvpc.get("securityGroups")
    also = f",securityGroups=[{','.join(groups)}]" if groups else ""
    return (
        f"make it public by `aws ecs update-service --cluster {service.cluster} --service {service.name} "
        f"--network-configuration 'awsvpcConfiguration={{subnets=[{subnets}]{also},assignPublicIp=ENABLED}}'`"
    )
