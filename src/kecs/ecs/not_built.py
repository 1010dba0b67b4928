"""Operations of ECS that KECS does not have yet: what the caller is told instead of invented data."""

from __future__ import annotations

from kecs.ecs.errors import NotImplementedOperation

INSTEAD = {
    "CreateExpressGatewayService": "use CreateService and `kecs port-forward`",
    "CreateTaskSet": "use CreateService with the ECS deployment controller, and UpdateService",
    "DeleteAttributes": "nothing needs them: there is one machine",
    "DescribeContainerInstances": "there are no container instances: tasks run on this machine as they are",
    "DescribeServiceDeployments": "use DescribeServices: `deployments` and `events`",
    "DescribeServiceRevisions": "use DescribeServices: each of `deployments` names its task definition",
    "DescribeTaskSets": "use DescribeServices: `deployments`",
    "ExecuteCommand": "use `kecs logs`, or a debugger on this machine: a task's containers are its processes",
    "ListContainerInstances": "there are no container instances: tasks run on this machine as they are",
    "ListServiceDeployments": "use DescribeServices: `deployments` and `events`",
    "ListServicesByNamespace": "use ListServices",
    "RegisterContainerInstance": "nothing is to be registered: tasks run on this machine as they are",
    "StartTask": "use RunTask: there is one machine to start a task on",
    "StopServiceDeployment": "use UpdateService with the task definition to go back to",
    "UpdateServicePrimaryTaskSet": "use UpdateService",
    "UpdateTaskSet": "use UpdateService",
}
"""What does the same or makes it needless, where there is such a thing."""


def not_built(operation: str) -> NotImplementedOperation:
    """Return the error for an operation that the model has and KECS has not."""
    instead = INSTEAD.get(operation)
    advice = f" Instead, {instead}." if instead and instead.startswith("use") else ""
    if instead and not advice:
        advice = f" {instead[0].upper()}{instead[1:]}."
    return NotImplementedOperation(f"KECS does not have the operation {operation} yet.{advice}")
