"""The table of operations against botocore's model."""

import pytest

from kecs.controlplane import ecs_model
from kecs.controlplane.operations import OPERATIONS, Read, Write
from kecs.ecs.not_built import INSTEAD, not_built

PROMISED = (
    "CreateCluster DeleteCluster DescribeClusters ListClusters UpdateCluster RegisterTaskDefinition "
    "DeregisterTaskDefinition DeleteTaskDefinitions DescribeTaskDefinition ListTaskDefinitions "
    "ListTaskDefinitionFamilies CreateService UpdateService DeleteService DescribeServices ListServices "
    "RunTask StopTask DescribeTasks ListTasks TagResource UntagResource ListTagsForResource"
)


@pytest.fixture(scope="module")
def model():
    return ecs_model.load()


def test_what_is_promised_is_there():
    """Every operation of the README answers."""
    assert set(PROMISED.split()) <= set(OPERATIONS)


def test_every_operation_is_one_of_the_model(model):
    """A misspelt name would never be called."""
    assert set(OPERATIONS) <= set(model.operation_names)


def test_every_operation_has_the_function_of_its_name():
    """CreateCluster is answered by create_cluster, and no two by one function."""
    for name, operation in OPERATIONS.items():
        snake = "".join(f"_{char.lower()}" if char.isupper() else char for char in name)[1:]
        assert operation.function.__name__ == snake


def test_reading_operations_are_those_that_read():
    """What AWS calls Describe, List or Get changes nothing; all else does."""
    for name, operation in OPERATIONS.items():
        assert isinstance(operation, Read if name.startswith(("Describe", "List", "Get")) else Write), name


def test_what_is_not_built_names_what_to_use_and_is_not_built(model):
    """A hint for an operation that exists by now would be stale."""
    assert set(INSTEAD) <= set(model.operation_names)
    assert not set(INSTEAD) & set(OPERATIONS)
    for name in set(model.operation_names) - set(OPERATIONS):
        error = not_built(name)
        assert (error.code, error.status) == ("NotImplemented", 501)
        assert name in error.message
