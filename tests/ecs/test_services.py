import msgspec
import pytest

from kecs.ecs import clusters, deployments, services, task_definitions, tasks
from kecs.ecs.errors import (
    ClientException,
    ClusterNotFoundException,
    InvalidParameterException,
    PlatformUnknownException,
    ServiceNotActiveException,
    ServiceNotFoundException,
)
from kecs.ecs.model import Service, ServiceEvent, Task

from .conftest import register, register_bridge
from .shapes import REGION

PREFIX = "arn:aws:ecs:us-east-1:123456789012:"
NETWORK = {"awsvpcConfiguration": {"subnets": ["subnet-1"]}}
FULL_NETWORK = {
    "awsvpcConfiguration": {"subnets": ["subnet-1"], "securityGroups": [], "assignPublicIp": "DISABLED"}
}
PUBLIC = {"awsvpcConfiguration": {"subnets": ["subnet-1"], "assignPublicIp": "ENABLED"}}
BALANCER = [{"targetGroupArn": "tg", "containerName": "web", "containerPort": 80}]


def create(ecs, name="web", definition="web", **params):
    if definition.startswith("web"):
        params.setdefault("networkConfiguration", NETWORK)
    if params.get("schedulingStrategy") != "DAEMON":
        params.setdefault("desiredCount", 2)
    return ecs.call(services.create_service, serviceName=name, taskDefinition=definition, **params)["service"]


def update(ecs, name="web", **params):
    return ecs.call(services.update_service, service=name, **params)["service"]


def delete(ecs, name="web", **params):
    return ecs.call(services.delete_service, service=name, **params)["service"]


def described(ecs, name="web", **params):
    [found] = ecs.call(services.describe_services, services=[name], **params)["services"]
    return found


def row(ecs, name="web"):
    return ecs.state.get(Service, REGION, "default", name)


def put(ecs, name="web", **members):
    ecs.write(lambda tx: tx.put(msgspec.structs.replace(row(ecs, name), **members)))


def start_task(ecs, name="web", deployment=None, **members):
    """Make a task of a service as the control plane does; `members` are its row's."""

    def make(tx):
        service = row(ecs, name)
        chosen = deployment or deployments.primary(service)
        definition = task_definitions.find(tx, chosen.task_definition, ecs.context())
        made = tasks.new_task(
            tx,
            cluster="default",
            definition=definition,
            ctx=ecs.context(),
            service=service,
            deployment=chosen,
        )
        tx.put(msgspec.structs.replace(made, **members))
        return made

    return ecs.write(make)


def test_a_new_service_looks_as_on_aws(ecs):
    service = create(ecs)
    deployment = service["deployments"][0]["id"]

    assert deployment.startswith("ecs-svc/")
    assert len(deployment) == len("ecs-svc/") + 19
    assert service == {
        "serviceArn": PREFIX + "service/default/web",
        "serviceName": "web",
        "clusterArn": PREFIX + "cluster/default",
        "status": "ACTIVE",
        "desiredCount": 2,
        "runningCount": 0,
        "pendingCount": 0,
        "launchType": "EC2",
        "taskDefinition": PREFIX + "task-definition/web:1",
        "deploymentConfiguration": {
            "deploymentCircuitBreaker": {"enable": False, "rollback": False},
            "maximumPercent": 200,
            "minimumHealthyPercent": 100,
            "strategy": "ROLLING",
            "bakeTimeInMinutes": 0,
        },
        "deploymentController": {"type": "ECS"},
        "deployments": [
            {
                "id": deployment,
                "status": "PRIMARY",
                "taskDefinition": PREFIX + "task-definition/web:1",
                "desiredCount": 2,
                "runningCount": 0,
                "pendingCount": 0,
                "failedTasks": 0,
                "createdAt": 1700000000.0,
                "updatedAt": 1700000000.0,
                "launchType": "EC2",
                "networkConfiguration": FULL_NETWORK,
                "rolloutState": "IN_PROGRESS",
                "rolloutStateReason": f"ECS deployment {deployment} in progress.",
            }
        ],
        "taskSets": [],
        "events": [],
        "createdAt": 1700000000.0,
        "createdBy": "arn:aws:iam::123456789012:root",
        "loadBalancers": [],
        "serviceRegistries": [],
        "placementConstraints": [],
        "placementStrategy": [],
        "networkConfiguration": FULL_NETWORK,
        "healthCheckGracePeriodSeconds": 0,
        "schedulingStrategy": "REPLICA",
        "enableECSManagedTags": False,
        "propagateTags": "NONE",
        "enableExecuteCommand": False,
        "availabilityZoneRebalancing": "ENABLED",
    }


def test_a_fargate_service_has_a_platform(ecs):
    service = create(ecs, launchType="FARGATE")

    assert (service["platformVersion"], service["platformFamily"]) == ("LATEST", "Linux")
    [deployment] = service["deployments"]
    assert (deployment["platformVersion"], deployment["platformFamily"]) == ("1.4.0", "Linux")


def test_a_service_that_asks_for_a_public_address_is_fargate(ecs):
    assert create(ecs, networkConfiguration=PUBLIC)["launchType"] == "FARGATE"
    assert row(ecs).public


def test_fargate_sizes_are_asked_of_those_who_name_fargate_only(ecs):
    container = {"name": "web", "image": "web:1", "memory": 64, "portMappings": [{"containerPort": 80}]}
    register(ecs, "small", [container], cpu=None, memory=None)

    service = create(ecs, definition="small", networkConfiguration=PUBLIC)
    assert service["launchType"] == "FARGATE"
    ecs.call(services.update_service, service="web", desiredCount=3, forceNewDeployment=True)
    with pytest.raises(InvalidParameterException, match="does not support launch_type FARGATE"):
        create(ecs, "other", "small", networkConfiguration=PUBLIC, launchType="FARGATE")


def test_settings_are_stored_and_returned(ecs):
    settings = {
        "loadBalancers": BALANCER,
        "serviceRegistries": [{"registryArn": "arn:aws:servicediscovery:us-east-1:123456789012:service/s"}],
        "placementConstraints": [{"type": "distinctInstance"}],
        "placementStrategy": [{"type": "spread", "field": "host"}],
        "availabilityZoneRebalancing": "DISABLED",
        "healthCheckGracePeriodSeconds": 7,
        "propagateTags": "SERVICE",
        "enableECSManagedTags": True,
        "tags": [{"key": "a", "value": "b"}],
    }

    service = create(ecs, role="my-role", **settings)

    assert {member: service[member] for member in settings} == settings
    assert service["roleArn"] == "arn:aws:iam::123456789012:role/my-role"
    assert "tags" not in described(ecs)
    assert described(ecs, include=["TAGS"])["tags"] == settings["tags"]


def test_service_connect_is_shown_by_the_deployment(ecs):
    connect = {"enabled": True, "services": [{"portName": "http"}]}

    [deployment] = create(ecs, serviceConnectConfiguration=connect)["deployments"]

    assert deployment["serviceConnectConfiguration"] == connect


def test_the_same_request_again_gives_the_same_service(ecs):
    first = create(ecs, clientToken="t")

    assert create(ecs, clientToken="t") == first
    assert create(ecs, definition="web:1", cluster="default") == first
    for change in ({"desiredCount": 3}, {"tags": [{"key": "a"}]}, {"definition": "bridge"}):
        with pytest.raises(InvalidParameterException, match="Creation of service was not idempotent"):
            create(ecs, **change)


def test_the_name_of_a_deleted_service_can_be_used_again_once_it_is_inactive(ecs):
    create(ecs)
    delete(ecs, force=True)

    with pytest.raises(InvalidParameterException, match="Unable to Start a service that is still Draining"):
        create(ecs)
    put(ecs, status="INACTIVE", events=[ServiceEvent(id="e", created_at=1.0, message="m")])
    service = create(ecs, desiredCount=5)
    assert (service["status"], service["desiredCount"], service["events"]) == ("ACTIVE", 5, [])


REFUSED = [
    ({"name": "a b"}, InvalidParameterException, "Service name is not valid"),
    ({"cluster": "nope"}, ClusterNotFoundException, "Cluster not found."),
    ({"definition": "nope"}, ClientException, "TaskDefinition not found."),
    ({"desiredCount": -1}, InvalidParameterException, "between 0 and 5000"),
    ({"definition": "bridge", "networkConfiguration": NETWORK}, InvalidParameterException, "not valid for"),
    ({"networkConfiguration": {}}, InvalidParameterException, "must be provided when networkMode 'awsvpc'"),
    ({"definition": "bridge", "launchType": "FARGATE"}, InvalidParameterException, "launch_type FARGATE"),
    ({"launchType": "EC2", "networkConfiguration": PUBLIC}, InvalidParameterException, "Assign public IP"),
    ({"launchType": "EXTERNAL"}, InvalidParameterException, "No Container Instances were found"),
    (
        {"launchType": "FARGATE", "capacityProviderStrategy": [{"capacityProvider": "FARGATE"}]},
        InvalidParameterException,
        "Specifying both a launch type and capacity provider strategy",
    ),
    ({"platformVersion": "LATEST"}, InvalidParameterException, "platform version must be null"),
    ({"platformVersion": "7", "launchType": "FARGATE"}, PlatformUnknownException, "does not exist"),
    ({"deploymentController": {"type": "EXTERNAL"}}, ClientException, "EXTERNAL"),
    ({"deploymentController": {"type": "CODE_DEPLOY"}}, ClientException, "CODE_DEPLOY"),
    ({"deploymentConfiguration": {"strategy": "BLUE_GREEN"}}, ClientException, "BLUE_GREEN"),
    (
        {"deploymentConfiguration": {"maximumPercent": 100}},
        InvalidParameterException,
        "cannot be 100 as this will block deployments",
    ),
    ({"deploymentConfiguration": {"maximumPercent": 99}}, InvalidParameterException, "equal to 100"),
    ({"deploymentConfiguration": {"minimumHealthyPercent": -1}}, InvalidParameterException, "equal to 0"),
    ({"deploymentConfiguration": {"minimumHealthyPercent": 201}}, InvalidParameterException, "must be less"),
    ({"healthCheckGracePeriodSeconds": -1}, InvalidParameterException, "healthCheckGracePeriodSeconds"),
    ({"clientToken": "x" * 37}, InvalidParameterException, "clientToken"),
    ({"enableExecuteCommand": True}, InvalidParameterException, "taskRoleArn"),
    ({"tags": [{"key": "aws:x"}]}, InvalidParameterException, "reserved"),
    ({"schedulingStrategy": "DAEMON", "launchType": "FARGATE"}, InvalidParameterException, "DAEMON"),
    (
        {"schedulingStrategy": "DAEMON", "placementStrategy": [{"type": "random"}]},
        InvalidParameterException,
        "DAEMON",
    ),
    (
        {"schedulingStrategy": "DAEMON", "capacityProviderStrategy": [{"capacityProvider": "FARGATE"}]},
        InvalidParameterException,
        "DAEMON scheduling strategy",
    ),
    (
        {"schedulingStrategy": "DAEMON", "deploymentConfiguration": {"maximumPercent": 150}},
        InvalidParameterException,
        "custom maximumPercent",
    ),
    (
        {"schedulingStrategy": "DAEMON", "deploymentConfiguration": {"minimumHealthyPercent": 100}},
        InvalidParameterException,
        "block deployments",
    ),
]


@pytest.mark.parametrize(("params", "error", "message"), REFUSED)
def test_a_service_that_cannot_be_is_refused(ecs, params, error, message):
    with pytest.raises(error) as caught:
        create(ecs, **params)

    assert message in caught.value.message
    assert ecs.state.scan(Service) == []


def test_a_service_needs_a_definition_and_a_count(ecs):
    with pytest.raises(InvalidParameterException, match="TaskDefinition can not be blank"):
        ecs.call(services.create_service, serviceName="x", desiredCount=1)
    with pytest.raises(InvalidParameterException, match="desired count must be specified"):
        ecs.call(services.create_service, serviceName="x", taskDefinition="bridge")


def test_an_inactive_definition_is_not_used(ecs):
    ecs.call(task_definitions.deregister_task_definition, taskDefinition="bridge:1")

    with pytest.raises(ClientException, match="TaskDefinition is inactive"):
        create(ecs, definition="bridge:1")


def test_a_daemon_has_one_task_for_the_one_machine(ecs):
    service = create(ecs, definition="bridge", schedulingStrategy="DAEMON")

    assert service["desiredCount"] == 1
    assert service["availabilityZoneRebalancing"] == "DISABLED"
    assert service["deploymentConfiguration"]["maximumPercent"] == 100
    assert service["deploymentConfiguration"]["minimumHealthyPercent"] == 0
    with pytest.raises(InvalidParameterException, match="DAEMON"):
        update(ecs, desiredCount=3)
    assert delete(ecs)["status"] == "DRAINING"


def test_the_clusters_default_strategy_is_used_and_launch_type_left_out(ecs):
    strategy = [{"capacityProvider": "FARGATE_SPOT", "weight": 1, "base": 0}]
    ecs.call(
        clusters.put_cluster_capacity_providers,
        cluster="default",
        capacityProviders=["FARGATE_SPOT"],
        defaultCapacityProviderStrategy=strategy,
    )

    service = create(ecs)

    assert service["capacityProviderStrategy"] == strategy
    assert "launchType" not in service
    task = start_task(ecs)
    assert (task.capacity_provider_name, task.launch_type) == ("FARGATE_SPOT", None)
    assert task.platform_family == "Linux"


def test_a_services_task_follows_from_it_and_its_deployment(ecs):
    create(
        ecs, networkConfiguration=PUBLIC, propagateTags="SERVICE", enableECSManagedTags=True,
        tags=[{"key": "a", "value": "b"}],
    )  # fmt: skip
    deployment = row(ecs).deployments[0].id

    task = start_task(ecs)

    assert (task.service, task.started_by, task.group) == ("web", deployment, "service:web")
    assert (task.launch_type, task.public, task.platform_version) == ("FARGATE", True, "1.4.0")
    assert task.tags == {"a": "b", "aws:ecs:clusterName": "default", "aws:ecs:serviceName": "web"}
    listed = ecs.call(tasks.list_tasks, serviceName="web")["taskArns"]
    assert listed == ecs.call(tasks.list_tasks, serviceName=PREFIX + "service/default/web")["taskArns"]
    assert [name.rpartition("/")[2] for name in listed] == [task.id]


def test_a_services_task_inherits_the_definitions_tags(ecs):
    create(ecs, propagateTags="TASK_DEFINITION", tags=[{"key": "a", "value": "b"}])

    assert start_task(ecs).tags == {"from": "definition"}


def test_counts_are_counted_from_the_tasks_of_each_deployment(ecs):
    create(ecs)
    first = row(ecs).deployments[0]
    start_task(ecs, last_status="RUNNING")
    start_task(ecs, last_status="PENDING")
    start_task(ecs, last_status="RUNNING", desired_status="STOPPED")
    start_task(ecs, last_status="STOPPED", desired_status="STOPPED")
    register(ecs)
    update(ecs, taskDefinition="web")
    start_task(ecs, last_status="RUNNING")

    service = described(ecs)

    assert (service["runningCount"], service["pendingCount"]) == (2, 1)
    shown = [(item["status"], item["runningCount"], item["pendingCount"]) for item in service["deployments"]]
    assert shown == [("PRIMARY", 1, 0), ("ACTIVE", 1, 1)]
    assert service["deployments"][1]["id"] == first.id


def revisions(service):
    return [item["taskDefinition"].rpartition(":")[2] for item in service["deployments"]]


def test_a_new_revision_starts_a_second_deployment_in_the_call(ecs):
    create(ecs)
    register(ecs)
    ecs.now += 1

    service = update(ecs, taskDefinition="web")

    assert revisions(service) == ["2", "1"]
    assert [item["status"] for item in service["deployments"]] == ["PRIMARY", "ACTIVE"]
    assert service["taskDefinition"].endswith("web:2")


@pytest.mark.parametrize(
    "params",
    [
        {"forceNewDeployment": True},
        {"networkConfiguration": {"awsvpcConfiguration": {"subnets": ["subnet-2"]}}},
        {"loadBalancers": BALANCER},
        {"serviceRegistries": [{"registryArn": "r"}]},
        {"serviceConnectConfiguration": {"enabled": False}},
        {"volumeConfigurations": [{"name": "v"}]},
    ],
)
def test_what_tasks_are_made_of_starts_a_deployment(ecs, params):
    create(ecs)

    assert len(update(ecs, **params)["deployments"]) == 2


@pytest.mark.parametrize(
    "params",
    [
        {},
        {"taskDefinition": "web"},
        {"taskDefinition": "web:1", "networkConfiguration": NETWORK, "loadBalancers": []},
        {"desiredCount": 3},
        {"deploymentConfiguration": {"maximumPercent": 150}},
        {"healthCheckGracePeriodSeconds": 9},
        {"propagateTags": "SERVICE", "enableECSManagedTags": True},
        {"availabilityZoneRebalancing": "DISABLED"},
        {"placementConstraints": [{"type": "distinctInstance"}], "placementStrategy": [{"type": "random"}]},
        {"capacityProviderStrategy": [{"capacityProvider": "FARGATE", "weight": 1, "base": 0}]},
    ],
)
def test_what_tasks_are_not_made_of_starts_none(ecs, params):
    create(ecs)

    service = update(ecs, **params)

    assert len(service["deployments"]) == 1
    for member in set(params) - {"taskDefinition", "networkConfiguration", "deploymentConfiguration"}:
        assert service[member] == params[member]


def test_scaling_shows_in_the_primary_deployment(ecs):
    create(ecs)
    ecs.now += 1

    [deployment] = update(ecs, desiredCount=5)["deployments"]

    assert (deployment["desiredCount"], deployment["updatedAt"]) == (5, ecs.now)


def test_a_part_of_the_deployment_configuration_leaves_the_rest(ecs):
    breaker = {"enable": True, "rollback": True}
    create(ecs, deploymentConfiguration={"deploymentCircuitBreaker": breaker, "minimumHealthyPercent": 50})

    configuration = update(ecs, deploymentConfiguration={"maximumPercent": 150})["deploymentConfiguration"]

    assert configuration["deploymentCircuitBreaker"] == breaker
    assert (configuration["minimumHealthyPercent"], configuration["maximumPercent"]) == (50, 150)


def test_a_deployment_needs_an_active_definition_and_scaling_does_not(ecs):
    create(ecs)
    ecs.call(task_definitions.deregister_task_definition, taskDefinition="web:1")

    assert update(ecs, desiredCount=4)["desiredCount"] == 4
    for params in ({"taskDefinition": "web:1"}, {"forceNewDeployment": True}):
        with pytest.raises(ClientException, match="TaskDefinition is inactive"):
            update(ecs, **params)


def test_a_public_address_makes_an_implied_ec2_service_fargate(ecs):
    create(ecs)
    create(ecs, "named", launchType="EC2")

    assert update(ecs, networkConfiguration=PUBLIC)["launchType"] == "FARGATE"
    with pytest.raises(InvalidParameterException, match="Assign public IP"):
        update(ecs, "named", networkConfiguration=PUBLIC)


def test_a_strategy_replaces_the_launch_type_and_an_empty_one_goes_back(ecs):
    strategy = [{"capacityProvider": "FARGATE", "weight": 1, "base": 0}]
    create(ecs)

    there = update(ecs, capacityProviderStrategy=strategy)
    kept = update(ecs, desiredCount=1)
    back = update(ecs, capacityProviderStrategy=[])

    assert (there["capacityProviderStrategy"], "launchType" in there) == (strategy, False)
    assert kept["capacityProviderStrategy"] == strategy
    assert (back["launchType"], "capacityProviderStrategy" in back) == ("FARGATE", False)


@pytest.mark.parametrize(
    ("params", "error"),
    [
        ({"service": "nope"}, ServiceNotFoundException),
        ({"cluster": "nope"}, ClusterNotFoundException),
        ({"service": PREFIX + "service/other/web"}, ServiceNotFoundException),
        ({"service": "arn:aws:s3:::x"}, InvalidParameterException),
        ({"desiredCount": -1}, InvalidParameterException),
        ({"taskDefinition": "nope"}, ClientException),
        ({"deploymentController": {"type": "EXTERNAL"}}, ClientException),
        ({"enableExecuteCommand": True}, InvalidParameterException),
    ],
)
def test_an_update_that_cannot_be_is_refused_and_changes_nothing(ecs, params, error):
    create(ecs)
    before = row(ecs)

    with pytest.raises(error):
        ecs.call(services.update_service, **{"service": "web", **params})

    assert row(ecs) is before


def test_a_service_is_deleted_when_it_is_scaled_to_zero_or_by_force(ecs):
    create(ecs, tags=[{"key": "a", "value": "b"}])
    with pytest.raises(InvalidParameterException, match="cannot be stopped while it is scaled above 0"):
        delete(ecs)
    update(ecs, desiredCount=0, forceNewDeployment=True)
    with pytest.raises(InvalidParameterException, match="cannot be stopped while deployments are active"):
        delete(ecs)

    deleted = delete(ecs, PREFIX + "service/default/web", force=True)

    assert (deleted["status"], deleted["desiredCount"]) == ("DRAINING", 0)
    assert deleted["deployments"][0]["desiredCount"] == 0
    assert row(ecs).tags == {}
    assert delete(ecs) == deleted
    assert ecs.call(services.list_services)["serviceArns"] == []
    with pytest.raises(ServiceNotActiveException):
        update(ecs, desiredCount=1)


def test_a_deleted_service_stays_describable(ecs):
    create(ecs, desiredCount=0)
    delete(ecs)
    put(ecs, status="INACTIVE", deployments=[])

    assert described(ecs)["status"] == "INACTIVE"
    with pytest.raises(ServiceNotFoundException):
        delete(ecs)


def test_describing_says_what_is_missing(ecs):
    create(ecs)
    other = PREFIX + "service/other/web"

    answer = ecs.call(
        services.describe_services, services=["web", PREFIX + "service/default/web", "no", other]
    )

    assert [service["serviceName"] for service in answer["services"]] == ["web", "web"]
    assert answer["failures"] == [
        {"arn": PREFIX + "service/default/no", "reason": "MISSING"},
        {"arn": other, "reason": "MISSING"},
    ]
    for asked in ([], ["x"] * 11):
        with pytest.raises(InvalidParameterException):
            ecs.call(services.describe_services, services=asked)
    with pytest.raises(ClusterNotFoundException):
        ecs.call(services.describe_services, services=["web"], cluster="nope")


def test_events_are_shown_newest_first(ecs):
    create(ecs)
    events = [
        ServiceEvent(id="b", created_at=2.0004, message="two"),
        ServiceEvent(id="a", created_at=1.0, message="one"),
    ]
    put(ecs, events=events)

    assert described(ecs)["events"] == [
        {"id": "b", "createdAt": 2.0, "message": "two"},
        {"id": "a", "createdAt": 1.0, "message": "one"},
    ]


def test_services_are_listed_ten_a_page_and_filtered(ecs):
    for number in range(11):
        create(ecs, f"s{number:02}", launchType="FARGATE" if number % 2 else "EC2")
    create(ecs, "daemon", definition="bridge", schedulingStrategy="DAEMON")

    def listed(**params):
        answer = ecs.call(services.list_services, **params)
        return [name.rpartition("/")[2] for name in answer["serviceArns"]], answer.get("nextToken")

    first, token = listed()
    rest, end = listed(nextToken=token)
    assert (first, rest, end) == (["daemon", *(f"s{n:02}" for n in range(9))], ["s09", "s10"], None)
    assert listed(launchType="FARGATE")[0] == [f"s{n:02}" for n in range(1, 11, 2)]
    assert listed(schedulingStrategy="DAEMON")[0] == ["daemon"]
    assert listed(resourceManagementType="ECS")[0] == []


def test_a_host_port_conflict_is_told_before_a_task_is_made(ecs):
    definition = register_bridge(ecs, "fixed", 8081)["taskDefinitionArn"]
    create(ecs, definition=definition)

    def conflict():
        found = task_definitions.find(ecs.state, definition, ecs.context())
        return tasks.host_port_conflict(ecs.state, found, ecs.context())

    assert conflict() is None
    task = start_task(ecs)
    assert conflict() == 8081
    ecs.write(lambda tx: tx.put(msgspec.structs.replace(tx.get(Task, *task.key), last_status="STOPPED")))
    assert conflict() is None
