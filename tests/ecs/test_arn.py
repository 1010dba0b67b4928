import pytest

from kecs.ecs import arn


@pytest.mark.parametrize(
    ("built", "text"),
    [
        (arn.cluster_arn("us-east-1", "prod"), "arn:aws:ecs:us-east-1:123456789012:cluster/prod"),
        (
            arn.service_arn("eu-west-1", "prod", "web"),
            "arn:aws:ecs:eu-west-1:123456789012:service/prod/web",
        ),
        (arn.task_arn("us-east-1", "prod", "ab"), "arn:aws:ecs:us-east-1:123456789012:task/prod/ab"),
        (
            arn.container_arn("us-east-1", "prod", "ab", "c-d"),
            "arn:aws:ecs:us-east-1:123456789012:container/prod/ab/c-d",
        ),
        (
            arn.task_definition_arn("us-gov-west-1", "web", 3),
            "arn:aws-us-gov:ecs:us-gov-west-1:123456789012:task-definition/web:3",
        ),
        (
            arn.capacity_provider_arn("cn-north-1", "FARGATE"),
            "arn:aws-cn:ecs:cn-north-1:123456789012:capacity-provider/FARGATE",
        ),
    ],
)
def test_arns_are_long_and_in_their_partition(built, text):
    assert built == text
    assert arn.parse(text).account == "123456789012"


def test_names_and_arns_name_the_same():
    assert arn.parse_cluster("prod") == arn.parse_cluster(arn.cluster_arn("us-east-1", "prod")) == "prod"
    assert arn.parse_service("web") == (None, "web")
    assert arn.parse_service(arn.service_arn("us-east-1", "prod", "web")) == ("prod", "web")
    assert arn.parse_service("arn:aws:ecs:us-east-1:123456789012:service/web") == (None, "web")
    assert arn.parse_task(arn.task_arn("us-east-1", "prod", "ab")) == ("prod", "ab")
    assert arn.parse_task_definition("web") == ("web", None)
    assert arn.parse_task_definition("web:12") == ("web", 12)
    assert arn.parse_task_definition(arn.task_definition_arn("us-east-1", "web", 12)) == ("web", 12)


@pytest.mark.parametrize(
    ("parse", "text"),
    [
        (arn.parse_cluster, "arn:aws:s3:::bucket"),
        (arn.parse_cluster, "arn:aws:ecs:us-east-1:123456789012:service/prod/web"),
        (arn.parse_cluster, "arn:aws:ecs:us-east-1:123456789012:cluster/a/b"),
        (arn.parse_cluster, "arn:aws:ecs:us-east-1:123456789012:cluster/"),
        (arn.parse_cluster, "arn:aws:ecs"),
        (arn.parse_service, "arn:aws:ecs:us-east-1:123456789012:service/a/b/c"),
        (arn.parse_task, "arn:aws:ecs:us-east-1:123456789012:service/a/b"),
        (arn.parse_task_definition, "web:"),
        (arn.parse_task_definition, "web:0"),
        (arn.parse_task_definition, "web:latest"),
        (arn.parse_task_definition, "web:٣"),
    ],
)
def test_what_is_no_such_arn_is_refused(parse, text):
    with pytest.raises(ValueError):
        parse(text)
