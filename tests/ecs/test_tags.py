import pytest

from kecs.ecs import tags
from kecs.ecs.errors import InvalidParameterException


def test_tags_go_through_in_their_order():
    given = [{"key": "b", "value": "1"}, {"key": "a"}, {"key": "é x", "value": "a_.:/=+-@"}]

    assert tags.to_list(tags.from_list(given)) == [
        {"key": "b", "value": "1"},
        {"key": "a", "value": ""},
        {"key": "é x", "value": "a_.:/=+-@"},
    ]


@pytest.mark.parametrize(
    "given",
    [
        [{"value": "x"}],
        [{"key": "", "value": "x"}],
        [{"key": "k" * 129}],
        [{"key": "k", "value": "v" * 257}],
        [{"key": "aws:x"}],
        [{"key": "AWS:x"}],
        [{"key": "k", "value": "aws:x"}],
        [{"key": "k", "value": "a;b"}],
        [{"key": "k"}, {"key": "k"}],
        [{"key": f"k{number}"} for number in range(51)],
    ],
)
def test_tags_beyond_the_limits_are_refused(given):
    with pytest.raises(InvalidParameterException):
        tags.from_list(given)


def test_fifty_tags_and_the_longest_ones_are_taken():
    assert len(tags.from_list([{"key": f"k{number}"} for number in range(50)])) == 50
    assert tags.from_list([{"key": "k" * 128, "value": "v" * 256}])


def test_a_task_inherits_is_given_and_is_managed():
    managed = tags.managed("prod", "web")

    assert tags.of_task({"a": "mine"}, {"a": "theirs", "b": "2", "aws:x": "y"}, managed) == {
        "a": "mine",
        "b": "2",
        "aws:ecs:clusterName": "prod",
        "aws:ecs:serviceName": "web",
    }
    assert tags.managed("prod", None) == {"aws:ecs:clusterName": "prod"}
