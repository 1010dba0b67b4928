from collections import Counter

import pytest

from kecs.ecs import capacity
from kecs.ecs.errors import InvalidParameterException
from kecs.ecs.model import Cluster

BOTH = ["FARGATE", "FARGATE_SPOT"]


def item(name, weight=0, base=0):
    return {"capacityProvider": name, "weight": weight, "base": base}


def test_the_base_is_filled_first_then_the_weights_are_kept():
    strategy = [item("FARGATE", weight=1, base=2), item("FARGATE_SPOT", weight=3)]
    used = Counter()
    order = []
    for _ in range(10):
        chosen = capacity.choose(strategy, used)
        used[chosen] += 1
        order.append(chosen)

    assert order[:2] == ["FARGATE", "FARGATE"]
    assert used == {"FARGATE": 4, "FARGATE_SPOT": 6}


def test_a_strategy_of_one_needs_no_weight():
    assert capacity.choose([item("FARGATE")], {"FARGATE": 5}) == "FARGATE"


@pytest.mark.parametrize(
    ("strategy", "message"),
    [
        ([item("mine")], "was not found"),
        ([item("FARGATE", 1), item("FARGATE", 1)], "duplicate"),
        ([item("FARGATE", 1, 1), item("FARGATE_SPOT", 1, 1)], "only one"),
        ([item("FARGATE"), item("FARGATE_SPOT")], "greater than zero"),
        ([item("FARGATE", 1)] * 21, "maximum of 20"),
    ],
)
def test_a_strategy_that_cannot_be_is_refused(strategy, message):
    with pytest.raises(InvalidParameterException, match=message):
        capacity.check_strategy(strategy, BOTH)


def test_a_provider_must_be_associated():
    with pytest.raises(InvalidParameterException, match="not associated"):
        capacity.check_strategy([item("FARGATE")], ["FARGATE_SPOT"])


def cluster(default=()):
    return Cluster(
        region="r",
        name="c",
        created_at=0.0,
        capacity_providers=BOTH,
        default_capacity_provider_strategy=list(default),
    )


@pytest.mark.parametrize(
    ("launch_type", "strategy", "default", "public", "expected"),
    [
        (None, None, [], False, ("EC2", [])),
        (None, None, [], True, ("FARGATE", [])),
        ("FARGATE", None, [item("FARGATE")], True, ("FARGATE", [])),
        ("EC2", [], [], False, ("EC2", [])),
        (None, None, [item("FARGATE")], False, (None, [item("FARGATE")])),
        (None, [item("FARGATE_SPOT", 1)], [item("FARGATE")], False, (None, [item("FARGATE_SPOT", 1)])),
    ],
)
def test_how_a_task_is_launched(launch_type, strategy, default, public, expected):
    assert capacity.launch(cluster(default), launch_type, strategy, wants_public_ip=public) == expected


@pytest.mark.parametrize(
    ("launch_type", "strategy", "public", "message"),
    [
        ("FARGATE", [item("FARGATE")], False, "Specifying both a launch type and capacity provider"),
        ("EC2", None, True, "Assign public IP is not supported for this launch type."),
        ("EXTERNAL", None, False, "No Container Instances were found in your cluster."),
        ("MANAGED_INSTANCES", None, False, "No Container Instances"),
    ],
)
def test_how_a_task_cannot_be_launched(launch_type, strategy, public, message):
    with pytest.raises(InvalidParameterException, match=message):
        capacity.launch(cluster(), launch_type, strategy, wants_public_ip=public)
