import pytest

from kecs.ecs.errors import ClientException, InvalidParameterException, SerializationException

from . import shapes

model = shapes.model()


def test_the_model_knows_its_operations():
    assert model.is_known("RunTask")
    assert not model.is_known("RunTasks")
    assert len(model.operation_names) > 60
    assert model.target_prefix == "AmazonEC2ContainerServiceV20141113"


def test_unknown_members_and_nulls_are_dropped_at_every_depth():
    given = {
        "family": "web",
        "memory": None,
        "nonsense": {"a": [1]},
        "containerDefinitions": [
            {"name": "web", "image": "x", "colour": "red", "command": ["a", None]},
            None,
        ],
    }

    assert model.validate("RegisterTaskDefinition", given) == {
        "family": "web",
        "containerDefinitions": [{"name": "web", "image": "x", "command": ["a"]}],
    }


def test_integral_numbers_are_integers():
    clean = model.validate("RunTask", {"taskDefinition": "web", "count": 2.0})

    assert clean["count"] == 2
    assert type(clean["count"]) is int


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"taskDefinition": 5}, "NUMBER_VALUE can not be converted to a String"),
        ({"taskDefinition": True}, "TRUE_VALUE can not be converted to a String"),
        ({"taskDefinition": {}}, "Start of structure or map found where not expected."),
        ({"count": "1"}, "STRING_VALUE can not be converted to an Integer"),
        ({"count": 1.5}, "NUMBER_VALUE can not be converted to an Integer"),
        ({"count": 2**31}, "NUMBER_VALUE can not be converted to an Integer"),
        ({"count": float("inf")}, "NUMBER_VALUE can not be converted to an Integer"),
        ({"count": False}, "FALSE_VALUE can not be converted to an Integer"),
        ({"enableExecuteCommand": "yes"}, "STRING_VALUE can not be converted to a Boolean"),
        ({"tags": {}}, "Expected list or null"),
        ({"overrides": []}, "expected a structure or null"),
        ({"group": "\ud800"}, "surrogate"),
    ],
)
def test_a_wrong_json_type_is_a_serialization_exception(params, message):
    with pytest.raises(SerializationException, match=message):
        model.validate("RunTask", {"taskDefinition": "web", **params})


def test_what_breaks_the_model_is_listed_in_one_error():
    with pytest.raises(InvalidParameterException) as caught:
        model.validate("RunTask", {"launchType": "MOON", "capacityProviderStrategy": [{"weight": 1001}]})

    assert caught.value.message.startswith("4 validation errors detected: ")
    for part in (
        "Value null at 'taskDefinition' failed to satisfy constraint: Member must not be null",
        "Value 'MOON' at 'launchType' failed to satisfy constraint: Member must satisfy enum value set: [EC2",
        "weight' failed to satisfy constraint: Member must have value less than or equal to 1000",
        "Value null at 'capacityProviderStrategy.1.member.capacityProvider'",
    ):
        assert part in caught.value.message


def test_registration_calls_it_a_client_exception():
    with pytest.raises(ClientException, match="1 validation error detected"):
        model.validate("RegisterTaskDefinition", {"family": "web"})


def test_a_protocol_that_ecs_takes_as_tcp_is_no_error():
    mapping = {"containerPort": 80, "protocol": "TCP"}
    container = {"name": "web", "image": "x", "portMappings": [mapping]}

    clean = model.validate("RegisterTaskDefinition", {"family": "web", "containerDefinitions": [container]})

    assert clean["containerDefinitions"][0]["portMappings"] == [mapping]
