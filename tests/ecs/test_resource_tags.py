import msgspec
import pytest

from kecs.ecs import clusters, resource_tags, services, task_definitions, tasks
from kecs.ecs.errors import (
    ClientException,
    ClusterNotFoundException,
    InvalidParameterException,
    ResourceNotFoundException,
    ServiceNotFoundException,
)
from kecs.ecs.model import Cluster, Service, Task

from .shapes import REGION

PREFIX = "arn:aws:ecs:us-east-1:123456789012:"


@pytest.fixture
def arns(ecs):
    """One resource of each kind, by kind."""
    ecs.call(services.create_service, serviceName="s", taskDefinition="bridge", desiredCount=0)
    task = ecs.call(tasks.run_task, taskDefinition="bridge")["tasks"][0]
    return {
        "cluster": PREFIX + "cluster/default",
        "service": PREFIX + "service/default/s",
        "task": task["taskArn"],
        "task-definition": PREFIX + "task-definition/bridge:1",
    }


def listed(ecs, arn):
    return ecs.call(resource_tags.list_tags_for_resource, resourceArn=arn)["tags"]


@pytest.mark.parametrize("kind", ["cluster", "service", "task", "task-definition"])
def test_tags_are_added_replaced_and_removed(ecs, arns, kind):
    arn = arns[kind]
    first, second = {"key": "a", "value": "1"}, {"key": "b", "value": "2"}

    ecs.call(resource_tags.tag_resource, resourceArn=arn, tags=[first, second])
    ecs.call(resource_tags.tag_resource, resourceArn=arn, tags=[{"key": "a", "value": "3"}])
    assert listed(ecs, arn) == [second, {"key": "a", "value": "3"}]
    ecs.call(resource_tags.untag_resource, resourceArn=arn, tagKeys=["a", "nope"])
    assert listed(ecs, arn) == [second]


def test_tagging_a_task_changes_its_version(ecs, arns):
    ecs.call(resource_tags.tag_resource, resourceArn=arns["task"], tags=[{"key": "a"}])

    [task] = ecs.call(tasks.describe_tasks, tasks=[arns["task"]])["tasks"]
    assert task["version"] == 2


def test_the_limit_is_on_all_tags_together(ecs, arns):
    many = [{"key": f"k{number}"} for number in range(50)]
    ecs.call(resource_tags.tag_resource, resourceArn=arns["cluster"], tags=many)

    ecs.call(resource_tags.tag_resource, resourceArn=arns["cluster"], tags=[{"key": "k0", "value": "x"}])
    with pytest.raises(InvalidParameterException, match="50"):
        ecs.call(resource_tags.tag_resource, resourceArn=arns["cluster"], tags=[{"key": "k50"}])
    assert len(listed(ecs, arns["cluster"])) == 50


@pytest.mark.parametrize(
    ("arn", "error", "message"),
    [
        ("cluster/nope", ClusterNotFoundException, "Cluster not found."),
        ("service/default/nope", ServiceNotFoundException, "Service not found."),
        ("service/fake_service:1", ServiceNotFoundException, "Service not found."),
        ("task-definition/nope:1", ClientException, "Unable to describe task definition."),
        ("task-definition/bridge", ClientException, "Unable to describe task definition."),
        ("task/default/nope", InvalidParameterException, "The referenced task was not found."),
        ("container-instance/default/x", ResourceNotFoundException, "not found"),
        ("banana/x", InvalidParameterException, "Invalid resource ARN"),
    ],
)
def test_a_resource_that_is_not_there(ecs, arns, arn, error, message):
    for function, params in (
        (resource_tags.tag_resource, {"tags": [{"key": "a"}]}),
        (resource_tags.untag_resource, {"tagKeys": ["a"]}),
        (resource_tags.list_tags_for_resource, {}),
    ):
        with pytest.raises(error, match=message):
            ecs.call(function, resourceArn=PREFIX + arn, **params)


def test_another_region_or_no_arn_is_no_resource(ecs, arns):
    with pytest.raises(ClusterNotFoundException):
        listed(ecs, "arn:aws:ecs:eu-west-1:123456789012:cluster/default")
    with pytest.raises(InvalidParameterException, match="Invalid resource ARN: default"):
        listed(ecs, "default")


def test_managed_tags_are_not_removed_by_hand(ecs):
    task = ecs.call(tasks.run_task, taskDefinition="bridge", enableECSManagedTags=True)["tasks"][0]

    with pytest.raises(InvalidParameterException, match="cannot be removed"):
        ecs.call(resource_tags.untag_resource, resourceArn=task["taskArn"], tagKeys=["aws:ecs:clusterName"])
    with pytest.raises(InvalidParameterException, match="up to 50"):
        ecs.call(resource_tags.untag_resource, resourceArn=task["taskArn"], tagKeys=["a"] * 51)


def test_what_is_over_has_no_tags(ecs, arns):
    ecs.write(lambda tx: tx.put(msgspec.structs.replace(tx.scan(Task)[0], last_status="STOPPED")))
    service = ecs.state.get(Service, REGION, "default", "s")
    ecs.write(lambda tx: tx.put(msgspec.structs.replace(service, status="INACTIVE")))
    ecs.call(clusters.delete_cluster, cluster="default")
    ecs.call(task_definitions.deregister_task_definition, taskDefinition="bridge:1")

    assert ecs.state.get(Cluster, REGION, "default").status == "INACTIVE"
    assert listed(ecs, arns["task-definition"]) == []
    ecs.call(task_definitions.delete_task_definitions, taskDefinitions=["bridge:1"])
    for arn, message in (
        (arns["cluster"], "The specified cluster is inactive."),
        (arns["service"], "The specified service is inactive."),
        (arns["task"], "The specified task is stopped."),
        (arns["task-definition"], "The specified task definition is being deleted."),
    ):
        with pytest.raises(InvalidParameterException, match=message):
            listed(ecs, arn)
