"""What people write for targets, ports and names, and what they hear when it is wrong."""

from __future__ import annotations

import re

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kecs.forward import spec
from kecs.forward.spec import ForwardSpec, Target, TargetSyntaxError

ID = "0123456789abcdef0123456789abcdef"
SERVICE_ARN = "arn:aws:ecs:eu-west-1:123456789012:service/prod/web"
TASK_ARN = f"arn:aws:ecs:eu-west-1:123456789012:task/prod/{ID}"


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("prod/web", Target(type="service", cluster="prod", service="web")),
        ("web", Target(type="service", cluster="default", service="web")),
        ("My_App/Web-1", Target(type="service", cluster="My_App", service="Web-1")),
        (SERVICE_ARN, Target(type="service", cluster="prod", service="web", region="eu-west-1")),
        # The short form of before 2018 has no cluster.
        (
            "arn:aws:ecs:eu-west-1:123456789012:service/web",
            Target(type="service", cluster="default", service="web", region="eu-west-1"),
        ),
        (
            "arn:aws-us-gov:ecs:us-gov-west-1:123456789012:service/prod/web",
            Target(type="service", cluster="prod", service="web", region="us-gov-west-1"),
        ),
    ],
)
def test_services(text, target):
    assert spec.parse_target(text) == target


@pytest.mark.parametrize(
    ("text", "target"),
    [
        (f"prod/{ID}", Target(type="task", cluster="prod", task=ID)),
        ("prod/01234567", Target(type="task", cluster="prod", task="01234567")),
        (ID, Target(type="task", cluster="default", task=ID)),
        (TASK_ARN, Target(type="task", cluster="prod", task=ID, region="eu-west-1")),
    ],
)
def test_tasks(text, target):
    assert spec.parse_target(text, "task") == target


def test_with_tags_the_argument_is_the_cluster_alone():
    target = spec.parse_target("prod", "task", tags={"app": "web"}, region="eu-west-1")

    assert target == Target(type="task", cluster="prod", tags={"app": "web"}, region="eu-west-1")
    with pytest.raises(TargetSyntaxError, match="write the cluster alone"):
        spec.parse_target("prod/web", "task", tags={"app": "web"})


def test_a_region_of_its_own_must_be_that_of_the_arn():
    assert spec.parse_target(SERVICE_ARN, region="eu-west-1").region == "eu-west-1"
    assert spec.parse_target("web", region="eu-west-1").region == "eu-west-1"
    with pytest.raises(TargetSyntaxError, match="eu-west-1, but the region us-east-1"):
        spec.parse_target(SERVICE_ARN, region="us-east-1")


@pytest.mark.parametrize(
    ("text", "kind", "wrong", "right"),
    [
        ("", "service", "the service is empty", "cluster/service"),
        ("/web", "service", "names no cluster", "cluster/service"),
        ("prod/", "service", "names no service", "cluster/service"),
        ("prod/web/80", "service", "too many `/`", "cluster/service"),
        ("prod/we b", "service", "`we b` is no service's name", "cluster/service"),
        ("pr.od/web", "service", "`pr.od` is no cluster's name", "cluster/service"),
        ("prod/web\n", "service", "is no service's name", "cluster/service"),
        ("w" * 256, "service", "is no service's name", "cluster/service"),
        ("", "task", "the task is empty", "cluster/task"),
        ("prod/0123", "task", "`0123` is no task id", "first 8 or more"),
        ("prod/web", "task", "`web` is no task id", "cluster/task"),
        ("prod/0123456X", "task", "is no task id", "cluster/task"),
        (ID + "0", "task", "is no task id", "cluster/task"),
        (TASK_ARN, "service", "the ARN of a task, not of a service", "use `start task`"),
        (SERVICE_ARN, "task", "the ARN of a service, not of a task", "use `start service`"),
        ("arn:aws:ecs:eu-west-1:1:cluster/prod", "service", "ARN of a cluster", "not of a service"),
        ("arn:aws:s3:::bucket/key", "service", "is no ARN of an ECS service", "arn:aws:ecs:us-east-1"),
        ("arn:aws:ecs:eu-west-1", "task", "is no ARN of an ECS task", "arn:aws:ecs:us-east-1"),
        ("arn:aws:ecs:eu-west-1:1:service/a/b/c", "service", "too many `/`", "cluster/service"),
    ],
)
def test_a_wrong_target_says_what_is_wrong_and_what_is_right(text, kind, wrong, right):
    with pytest.raises(TargetSyntaxError) as caught:
        spec.parse_target(text, kind)

    assert wrong in str(caught.value)
    assert right in str(caught.value)


@pytest.mark.parametrize(
    ("text", "local", "target", "protocol"),
    [
        ("8080:80", 8080, 80, None),
        (":80", None, 80, None),
        ("8080", 8080, 8080, None),
        ("8080:http", 8080, "http", None),
        (":http", None, "http", None),
        ("http", None, "http", None),
        ("1:65535", 1, 65535, None),
        ("5353:53/udp", 5353, 53, "udp"),
        (":dns/udp", None, "dns", "udp"),
        ("8080/tcp", 8080, 8080, "tcp"),
        ("5353/udp", 5353, 5353, "udp"),
    ],
)
def test_ports_as_kubectl_users_write_them(text, local, target, protocol):
    assert spec.parse_ports(text) == (local, target, protocol)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("5353:53/sctp", "write `53/tcp` or `53/udp`"),
        ("53/UDP", "write `53/tcp` or `53/udp`"),
        ("5353/udp:53", "`5353/udp` is no local port"),
        ("53/", "`53/` names no protocol"),
        ("/udp", "`` is no target port"),
        ("53/udp/tcp", "names no protocol"),
    ],
)
def test_what_names_no_protocol(text, message):
    with pytest.raises(spec.TargetSyntaxError, match=re.escape(message)):
        spec.parse_ports(text)


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("", "the ports are empty"),
        (":", "names no target port"),
        ("8080:", "names no target port"),
        ("8080:80:90", "more than two ports"),
        ("0:80", "the local port `0` is not from 1 to 65535; leave it out"),
        ("70000:80", "the local port `70000` is not from 1 to 65535"),
        ("80:0", "the target port `0` is not from 1 to 65535"),
        ("65536", "`65536` is not from 1 to 65535"),
        ("http:80", "`http` is no local port"),
        ("-1:80", "the local port `-1` is not from 1 to 65535"),
        ("8080:a b", "`a b` is no target port"),
        ("1e3:80", "`1e3` is no local port"),
        ("٨٠:80", "is no local port"),
    ],
)
def test_wrong_ports_say_what_is_wrong(text, wrong):
    with pytest.raises(TargetSyntaxError) as caught:
        spec.parse_ports(text)

    assert wrong in str(caught.value)


@given(st.text(max_size=40))
def test_whatever_is_typed_is_understood_or_refused(text):
    """Nothing but a target or a TargetSyntaxError comes out, and what is accepted passes `check`."""
    for parse in (
        lambda: spec.parse_target(text),
        lambda: spec.parse_target(text, "task"),
        lambda: spec.parse_ports(text),
        lambda: spec.check_name(text),
    ):
        try:
            parsed = parse()
        except TargetSyntaxError:
            continue
        if isinstance(parsed, Target):
            spec.check(ForwardSpec(target=parsed))


@pytest.mark.parametrize("name", ["web", "A.b_c-1", "x" * 63, "pf-1", "agent.1"])
def test_names(name):
    assert spec.check_name(name) == name


@pytest.mark.parametrize("name", ["", "agent", "a b", "x" * 64, "a/b", "é", "pf-0123abcd", "a\n"])
def test_wrong_names(name):
    with pytest.raises(TargetSyntaxError, match="cannot name a forward"):
        spec.check_name(name)


def test_default_names():
    web = Target(type="service", cluster="prod", service="web")
    assert spec.default_name(web, set()) == "prod-web"
    assert spec.default_name(web, {"prod-web", "prod-web-2"}) == "prod-web-3"
    assert spec.default_name(Target(type="task", task=ID), set()) == "task-01234567"


def test_a_default_name_is_always_a_legal_one():
    long = Target(type="service", cluster="c" * 255, service="s" * 255)
    first = spec.default_name(long, set())
    second = spec.default_name(long, {first})

    assert spec.check_name(first) == "c" * 63
    assert spec.check_name(second) == "c" * 61 + "-2"


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (ForwardSpec(target=Target(type="service", cluster="a/b", service="web")), "no cluster's name"),
        (ForwardSpec(target=Target(type="service")), "names no service"),
        (ForwardSpec(target=Target(type="task", task="web")), "no task id"),
        (ForwardSpec(target=Target(type="service", service="web"), name="agent"), "cannot name"),
        (ForwardSpec(target=Target(type="service", service="web"), local_port=0), "local port"),
        (ForwardSpec(target=Target(type="service", service="web"), local_port=65536), "local port"),
        (ForwardSpec(target=Target(type="service", service="web"), target_port=-80), "target port"),
        (ForwardSpec(target=Target(type="service", service="web"), target_port="a b"), "target port"),
        (ForwardSpec(target=Target(type="task", cluster="", tags={"a": "b"})), "names no cluster"),
        (ForwardSpec(target=Target(type="service", service="web", tags={"a": "b"})), "has tags too"),
        (ForwardSpec(target=Target(type="service", tags={"a": "b"})), "has tags too"),
        (ForwardSpec(target=Target(type="task", task="01234567", tags={"a": "b"})), "has tags too"),
        (ForwardSpec(target=Target(type="task", task="01234567"), strict=True), "has no tags"),
    ],
)
def test_a_spec_from_elsewhere_is_checked_as_if_typed(wrong, says):
    with pytest.raises(TargetSyntaxError, match=says):
        spec.check(wrong)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (spec.Target(type="task", task="0123abcd"), "only services are published"),
        (spec.Target(type="task", tags={"A": "b"}), "only services are published"),
    ],
)
def test_only_services_are_published(given, says):
    with pytest.raises(spec.TargetSyntaxError, match=says):
        spec.check(spec.ForwardSpec(target=given, publish=18080))


@pytest.mark.parametrize("address", [[], ["127.0.0.1"], ["0.0.0.0"]])
def test_a_published_port_is_not_the_local_one(address):
    target = spec.Target(type="service", service="web")
    given = spec.ForwardSpec(target=target, local_port=18080, publish=18080, address=address)

    with pytest.raises(spec.TargetSyntaxError, match="cannot be the local port and the published one"):
        spec.check(given)
    spec.check(msgspec.structs.replace(given, address=["::1"]))
    with pytest.raises(spec.TargetSyntaxError, match="not from 1 to 65535"):
        spec.check(msgspec.structs.replace(given, publish=0))
