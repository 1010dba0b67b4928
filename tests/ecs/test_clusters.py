import msgspec
import pytest

from kecs.ecs import clusters
from kecs.ecs.errors import (
    ClusterContainsServicesException,
    ClusterContainsTasksException,
    ClusterNotFoundException,
    InvalidParameterException,
)
from kecs.ecs.model import Cluster, Service, Task

from .shapes import REGION, Ecs

ARN = "arn:aws:ecs:us-east-1:123456789012:cluster/"


@pytest.fixture
def ecs():
    return Ecs()


def task(task_id="t", last_status="RUNNING", **members):
    return Task(
        region=REGION, cluster="prod", id=task_id, group="family:web", task_definition="", family="web",
        revision=1, containers=[], created_at=0.0, last_status=last_status, **members,
    )  # fmt: skip


def service(name="web", status="ACTIVE", **members):
    return Service(
        region=REGION, cluster="prod", name=name, status=status, task_definition="", desired_count=1,
        deployment_configuration={}, created_at=0.0, **members,
    )  # fmt: skip


def test_a_new_cluster_has_awss_defaults(ecs):
    cluster = ecs.call(clusters.create_cluster, clusterName="prod")["cluster"]

    assert cluster == {
        "clusterArn": ARN + "prod",
        "clusterName": "prod",
        "status": "ACTIVE",
        "registeredContainerInstancesCount": 0,
        "runningTasksCount": 0,
        "pendingTasksCount": 0,
        "activeServicesCount": 0,
        "statistics": [],
        "tags": [],
        "settings": [{"name": "containerInsights", "value": "disabled"}],
        "capacityProviders": [],
        "defaultCapacityProviderStrategy": [],
    }


def test_without_a_name_it_is_the_default_cluster(ecs):
    assert ecs.call(clusters.create_cluster)["cluster"]["clusterName"] == "default"


def test_default_comes_into_being_with_what_is_run_in_it_once(ecs):
    with pytest.raises(ClusterNotFoundException):
        ecs.write(lambda tx: clusters.require(tx, None, ecs.context()))
    ecs.write(lambda tx: clusters.require_to_run(tx, None, ecs.context()))
    assert ecs.state.get(Cluster, REGION, "default").status == "ACTIVE"
    ecs.call(clusters.delete_cluster, cluster="default")

    with pytest.raises(ClusterNotFoundException, match="inactive"):
        ecs.write(lambda tx: clusters.require_to_run(tx, "default", ecs.context()))
    with pytest.raises(ClusterNotFoundException):
        ecs.write(lambda tx: clusters.require_to_run(tx, "other", ecs.context()))


def test_what_was_asked_for_is_returned(ecs):
    members = {
        "settings": [{"name": "containerInsights", "value": "enhanced"}],
        "configuration": {"executeCommandConfiguration": {"logging": "DEFAULT"}},
        "capacityProviders": ["FARGATE", "FARGATE_SPOT"],
        "defaultCapacityProviderStrategy": [{"capacityProvider": "FARGATE_SPOT", "weight": 1, "base": 2}],
        "tags": [{"key": "team", "value": "blue"}],
    }

    created = ecs.call(clusters.create_cluster, clusterName="prod", **members)["cluster"]

    for member, value in members.items():
        assert created[member] == value


def test_creating_it_again_returns_it_and_changes_nothing(ecs):
    first = ecs.call(clusters.create_cluster, clusterName="prod", tags=[{"key": "a", "value": "b"}])
    state = ecs.state.get(Cluster, REGION, "prod")
    ecs.now += 5

    assert ecs.call(clusters.create_cluster, clusterName="prod") == first
    assert ecs.state.get(Cluster, REGION, "prod") is state
    with pytest.raises(InvalidParameterException, match="idempotent"):
        ecs.call(clusters.create_cluster, clusterName="prod", tags=[{"key": "a", "value": "c"}])


def test_a_deleted_cluster_is_inactive_describable_and_can_be_made_again(ecs):
    ecs.call(clusters.create_cluster, clusterName="prod", tags=[{"key": "a", "value": "b"}])

    assert ecs.call(clusters.delete_cluster, cluster=ARN + "prod")["cluster"]["status"] == "INACTIVE"
    assert ecs.call(clusters.list_clusters)["clusterArns"] == []
    assert ecs.call(clusters.describe_clusters, clusters=["prod"])["clusters"][0]["status"] == "INACTIVE"
    with pytest.raises(ClusterNotFoundException, match="inactive"):
        ecs.call(clusters.delete_cluster, cluster="prod")
    created = ecs.call(clusters.create_cluster, clusterName="prod")["cluster"]
    assert (created["status"], created["tags"]) == ("ACTIVE", [])


def test_a_cluster_with_services_or_tasks_is_not_deleted(ecs):
    ecs.call(clusters.create_cluster, clusterName="prod")
    ecs.write(lambda tx: tx.put(service()))
    ecs.write(lambda tx: tx.put(task()))

    with pytest.raises(ClusterContainsServicesException):
        ecs.call(clusters.delete_cluster, cluster="prod")
    ecs.write(lambda tx: tx.put(service(status="DRAINING")))
    with pytest.raises(ClusterContainsTasksException):
        ecs.call(clusters.delete_cluster, cluster="prod")
    ecs.write(lambda tx: tx.put(task(last_status="STOPPED")))
    assert ecs.call(clusters.delete_cluster, cluster="prod")["cluster"]["status"] == "INACTIVE"


def test_counts_and_statistics_are_counted_from_the_rows(ecs):
    ecs.call(clusters.create_cluster, clusterName="prod")
    rows = [
        task("a"), task("b", "PENDING", launch_type="FARGATE"), task("c", "STOPPED"),
        task("d", launch_type="FARGATE"), task("e", desired_status="STOPPED"),
        service(), service("api", launch_type="FARGATE"), service("old", "INACTIVE"),
        service("bye", "DRAINING"),
    ]  # fmt: skip
    ecs.write(lambda tx: [tx.put(row) for row in rows])

    [cluster] = ecs.call(clusters.describe_clusters, clusters=["prod"], include=["STATISTICS"])["clusters"]

    counts = [cluster[name] for name in ("runningTasksCount", "pendingTasksCount", "activeServicesCount")]
    assert counts == [2, 1, 2]
    assert {item["name"]: item["value"] for item in cluster["statistics"]} == {
        "runningEC2TasksCount": "1", "pendingEC2TasksCount": "0",
        "activeEC2ServiceCount": "1", "drainingEC2ServiceCount": "1",
        "runningFargateTasksCount": "1", "pendingFargateTasksCount": "1",
        "activeFargateServiceCount": "1", "drainingFargateServiceCount": "0",
    }  # fmt: skip


def test_describing_says_what_is_missing_and_includes_only_what_was_asked(ecs):
    ecs.call(clusters.create_cluster, clusterName="prod", tags=[{"key": "a", "value": "b"}])
    elsewhere = "arn:aws:ecs:eu-west-1:123456789012:cluster/prod"

    answer = ecs.call(clusters.describe_clusters, clusters=["prod", "nope", ARN + "no", elsewhere])

    assert answer["failures"] == [
        {"arn": ARN + "nope", "reason": "MISSING"},
        {"arn": ARN + "no", "reason": "MISSING"},
        {"arn": elsewhere, "reason": "MISSING"},
    ]
    [cluster] = answer["clusters"]
    assert (cluster["tags"], cluster["settings"], "configuration" in cluster) == ([], [], False)
    everything = ["TAGS", "SETTINGS"]
    [cluster] = ecs.call(clusters.describe_clusters, clusters=["prod"], include=everything)["clusters"]
    assert (len(cluster["tags"]), len(cluster["settings"])) == (1, 1)


def test_describing_none_describes_the_default_one(ecs):
    assert ecs.call(clusters.describe_clusters)["failures"] == [{"arn": ARN + "default", "reason": "MISSING"}]


def test_regions_are_apart(ecs):
    ecs.call(clusters.create_cluster, clusterName="prod")
    ecs.region = "eu-west-1"

    assert ecs.call(clusters.list_clusters)["clusterArns"] == []


def test_a_cluster_is_updated(ecs):
    ecs.call(clusters.create_cluster, clusterName="prod", tags=[{"key": "a", "value": "b"}])
    settings = [{"name": "containerInsights", "value": "enabled"}]
    configuration = {"executeCommandConfiguration": {"logging": "NONE"}}

    updated = ecs.call(
        clusters.update_cluster, cluster="prod", settings=settings, configuration=configuration
    )["cluster"]

    assert (updated["settings"], updated["configuration"]) == (settings, configuration)
    assert ecs.state.get(Cluster, REGION, "prod").tags == {"a": "b"}
    off = [{"name": "containerInsights", "value": "disabled"}]
    assert (
        ecs.call(clusters.update_cluster_settings, cluster="prod", settings=off)["cluster"]["settings"] == off
    )


def test_the_default_namespace_can_be_set_and_removed(ecs):
    namespace = "arn:aws:servicediscovery:us-east-1:123456789012:namespace/ns-1"
    ecs.call(clusters.create_cluster, clusterName="prod", serviceConnectDefaults={"namespace": namespace})

    changed = ecs.call(clusters.update_cluster, cluster="prod", serviceConnectDefaults={"namespace": ""})

    assert "serviceConnectDefaults" not in changed["cluster"]


@pytest.mark.parametrize(
    ("function", "params", "error"),
    [
        (clusters.create_cluster, {"clusterName": "a b"}, InvalidParameterException),
        (clusters.create_cluster, {"clusterName": ""}, InvalidParameterException),
        (clusters.create_cluster, {"capacityProviders": ["mine"]}, InvalidParameterException),
        (
            clusters.create_cluster,
            {"settings": [{"name": "containerInsights", "value": "on"}]},
            InvalidParameterException,
        ),
        (
            clusters.create_cluster,
            {"defaultCapacityProviderStrategy": [{"capacityProvider": "FARGATE"}]},
            InvalidParameterException,
        ),
        (clusters.delete_cluster, {"cluster": "nope"}, ClusterNotFoundException),
        (clusters.delete_cluster, {"cluster": ""}, InvalidParameterException),
        (clusters.delete_cluster, {"cluster": "arn:aws:s3:::x"}, InvalidParameterException),
        (clusters.update_cluster, {"cluster": "nope"}, ClusterNotFoundException),
        (clusters.describe_clusters, {"clusters": ["c"] * 101}, InvalidParameterException),
    ],
)
def test_what_cannot_be_done_is_refused(ecs, function, params, error):
    with pytest.raises(error):
        ecs.call(function, **params)


def test_capacity_providers_are_replaced_but_not_taken_from_a_service(ecs):
    ecs.call(clusters.create_cluster, clusterName="prod", capacityProviders=["FARGATE"])
    strategy = [{"capacityProvider": "FARGATE_SPOT", "weight": 1, "base": 0}]

    put = ecs.call(
        clusters.put_cluster_capacity_providers,
        cluster="prod",
        capacityProviders=["FARGATE_SPOT"],
        defaultCapacityProviderStrategy=strategy,
    )["cluster"]

    assert put["capacityProviders"] == ["FARGATE_SPOT"]
    assert put["defaultCapacityProviderStrategy"] == strategy
    ecs.write(lambda tx: tx.put(service(capacity_provider_strategy=strategy)))
    with pytest.raises(InvalidParameterException, match="in use"):
        ecs.call(
            clusters.put_cluster_capacity_providers,
            cluster="prod",
            capacityProviders=[],
            defaultCapacityProviderStrategy=[],
        )


def test_the_capacity_providers_there_are(ecs):
    answer = ecs.call(clusters.describe_capacity_providers)
    asked = ecs.call(clusters.describe_capacity_providers, capacityProviders=["FARGATE", "mine"])

    assert [item["name"] for item in answer["capacityProviders"]] == ["FARGATE", "FARGATE_SPOT"]
    assert [item["name"] for item in asked["capacityProviders"]] == ["FARGATE"]
    assert asked["failures"] == [
        {"arn": "arn:aws:ecs:us-east-1:123456789012:capacity-provider/mine", "reason": "MISSING"}
    ]


def test_clusters_are_listed_in_pages(ecs):
    for number in range(5):
        ecs.call(clusters.create_cluster, clusterName=f"c{number}")

    first = ecs.call(clusters.list_clusters, maxResults=3)
    rest = ecs.call(clusters.list_clusters, maxResults=3, nextToken=first["nextToken"])

    assert [name[-2:] for name in first["clusterArns"] + rest["clusterArns"]] == [
        "c0",
        "c1",
        "c2",
        "c3",
        "c4",
    ]
    assert "nextToken" not in rest


def test_a_row_written_by_an_older_kecs_is_still_described(ecs):
    """Members with defaults may be missing on disk."""
    row = msgspec.convert({"region": REGION, "name": "old", "created_at": 1.0}, Cluster)
    ecs.write(lambda tx: tx.put(row))

    assert ecs.call(clusters.describe_clusters, clusters=["old"])["failures"] == []
