"""What a start refuses, in which words, with which exit code."""

from __future__ import annotations

import msgspec
import pytest
from tests.agent.shapes import REGION, A, B, lone, port, service, task, wanted

from kecs.agent import checks
from kecs.errors import ExitCode, KecsError
from kecs.forward.spec import ForwardSpec, Probe, Target

TWO = [port(80), port(81, name="admin"), port(53, name=None, protocol="udp")]
C = "ab" * 16


def find(spec, *targets):
    return checks.find(spec, targets, REGION)


@pytest.mark.parametrize(
    ("spec", "found"),
    [
        (wanted(), ("web", None, 80, None)),
        (wanted(target_port=80), ("web", None, 80, None)),
        (wanted(target_port="http"), ("web", None, 80, "http")),
        (wanted(f"prod/{A}", "task"), (None, A, 80, None)),
        (wanted("prod/aaaaaaaa", "task"), (None, A, 80, None)),
        (wanted("prod/bbbbbbbb", "task"), (None, B, 80, None)),
    ],
)
def test_what_is_there_is_found(spec, found):
    wish = find(spec, service(task(A, port(80))), lone(task(B, port(80))), service(name="other"))

    assert (wish.service, wish.task_id, wish.target_port, wish.target_port_name) == found
    assert (wish.region, wish.cluster) == (REGION, "prod")


def test_a_service_without_tasks_can_be_forwarded():
    assert find(wanted(), service()).target_port == 80


def test_the_region_of_the_target_counts():
    there = service(task(A), region="eu-west-1")

    assert find(wanted(region="eu-west-1"), there, service()).region == "eu-west-1"


def test_the_current_revision_decides_which_ports_there_are():
    rolling = service(task(A, port(80, 29001)), ports=[port(8080)])

    assert find(wanted(), rolling).target_port == 8080


def test_an_ambiguous_prefix_prefers_the_task_that_lives():
    dead = task("abababab" + "0" * 24, status="STOPPED")

    assert find(wanted("prod/abababab", "task"), service(dead, task(C, port(80)))).task_id == C


def refused(spec, *targets):
    with pytest.raises(KecsError) as caught:
        find(spec, *targets)
    assert caught.value.hint
    return caught.value


@pytest.mark.parametrize(
    ("spec", "targets", "code", "message", "hint"),
    [
        (wanted("nowhere/web"), [service(), service(cluster="dev")], 3, "cluster `nowhere`", "`dev`, `prod`"),
        (wanted("nowhere/web"), [], 3, "cluster `nowhere`", "kecs ps"),
        (wanted("prod/nope"), [service(), service(name="api")], 3, "no service `nope`", "`api`, `web`"),
        (wanted("prod/nope"), [lone(task(A))], 3, "no service in a cluster `prod`", "`prod`"),
        (wanted(), [service(region="eu-west-1"), service(region="ap-south-1")], 3,
         "not in us-east-1; it is in `ap-south-1`, `eu-west-1`", "--region ap-south-1"),
        (wanted("prod/nope"), [service(region="eu-west-1")], 3, "the cluster `prod` is not in us-east-1",
         "--region eu-west-1"),
        (wanted("prod/cccccccc", "task"), [service(task(A))], 3, "no task `cccccccc`", A),
        (wanted("prod/cccccccc", "task"), [], 3, "cluster `prod`", "kecs ps"),
        (wanted("prod/aaaaaaaa", "task"), [service(task(A), region="eu-west-1")], 3, "it is in `eu-west-1`",
         "--region eu-west-1"),
        (wanted("prod/aaaaaaaa", "task"), [service(task(A), task("a" * 31 + "b"))], 2, "2 tasks",
         "more of its"),
        (wanted("prod/aaaaaaaa", "task"), [lone(task(A, status="STOPPED", reason="killed"))], 1,
         "is STOPPED (killed)", "forward a service"),
        (wanted(target_port=81), [service()], 3, "no port `81`", "80 (http)"),
        (wanted(target_port="nope"), [service()], 3, "no port `nope`", "80 (http)"),
        (wanted(), [service(ports=TWO)], 2, "several ports: 53/udp, 80 (http), 81 (admin)",
         "--target-port 80"),
        (wanted(target_port=53, protocol="tcp"), [service(ports=TWO)], 3, "no port `53/tcp`", "53/udp"),
        (wanted(target_port=80, protocol="udp"), [service(ports=TWO)], 3, "no port `80/udp`", "53/udp"),
        (wanted(protocol="udp"), [service(ports=TWO[:2])], 3, "no port of UDP", "80 (http)"),
        (wanted(), [service(ports=[port(53, protocol="udp"), port(54, protocol="udp")])], 2,
         "several ports: 53/udp (http), 54/udp (http)", "--target-port 53"),
        (wanted(target_port=53, route="tunnel"), [service(ports=TWO)], 2, "a tunnel carries TCP only",
         "--route"),
        (wanted(target_port=53, probe=Probe()), [service(ports=TWO)], 2, "a probe connects by TCP",
         "--probe"),
        (wanted(target_port=53, hold_seconds=1.0), [service(ports=TWO)], 2, "no connections to hold",
         "--hold"),
        (wanted(target_port=80, idle_seconds=5.0), [service(ports=TWO)], 2, "`--idle` is for UDP",
         "53/udp"),
        (wanted(), [service(ports=[])], 1, "no port mappings", "portMappings"),
    ],
)  # fmt: skip
def test_refusals(spec, targets, code, message, hint):
    error = refused(spec, *targets)

    assert message in error.message
    assert hint in (error.hint or "")
    assert error.exit_code == code


def test_tags_that_only_a_task_of_another_region_has_are_an_error_that_names_it():
    target = Target(type="task", cluster="prod", tags={"env": "dev"})
    there = lone(task(A, port(80), env="dev"), region="eu-west-1")
    error = refused(ForwardSpec(target=target, target_port=80), service(task(C, port(80), env="x")), there)
    assert "the tags env=dev is not in us-east-1; it is in `eu-west-1`" in error.message
    assert "--region eu-west-1" in (error.hint or "")


def test_what_is_not_public_is_refused_with_the_command_that_changes_it():
    private = service(task(A), public=False, subnets=["subnet-a", "subnet-b"], security_groups=["sg-1"])

    error = refused(wanted(), private)

    assert error.exit_code == ExitCode.FAILED
    assert "`prod/web` is not public" in error.message
    assert "`assignPublicIp`" in error.message
    assert (
        "aws ecs update-service --cluster prod --service web --network-configuration "
        "'awsvpcConfiguration={subnets=[subnet-a,subnet-b],securityGroups=[sg-1],assignPublicIp=ENABLED}'"
    ) in (error.hint or "")


def test_a_task_that_is_not_public_must_be_run_again():
    error = refused(wanted(f"prod/{A}", "task"), lone(task(A), public=False))

    assert A in error.message
    assert "aws ecs run-task --cluster prod" in (error.hint or "")
    assert "assignPublicIp=ENABLED" in (error.hint or "")


def test_a_udp_port_beside_the_only_tcp_port_is_no_choice_to_make():
    wish = find(wanted(), service(ports=[TWO[0], TWO[2]]))
    assert (wish.target_port, wish.protocol) == (80, "tcp")


BOTH = [port(53), port(53, protocol="udp")]


@pytest.mark.parametrize(
    ("asked", "ports", "found"),
    [
        ({"target_port": 53}, TWO, (53, "udp")),
        ({}, TWO[2:], (53, "udp")),
        ({"target_port": 53}, BOTH, (53, "tcp")),
        ({"target_port": 53, "protocol": "udp"}, BOTH, (53, "udp")),
        ({"target_port": "http", "protocol": "udp"}, BOTH, (53, "udp")),
        ({"protocol": "udp"}, TWO, (53, "udp")),
        ({"target_port": 53, "idle_seconds": 5.0}, TWO, (53, "udp")),
    ],
)
def test_which_protocol_is_meant(asked, ports, found):
    wish = find(wanted(**asked), service(ports=ports))
    assert (wish.target_port, wish.protocol) == found


def test_tcp_and_udp_of_one_port_are_two_forwards():
    tcp, udp = (find(wanted(target_port=53, protocol=each), service(ports=BOTH)) for each in ("tcp", "udp"))
    assert tcp.key != udp.key


@pytest.mark.parametrize(
    ("spec", "code", "message"),
    [
        (wanted(name="agent"), 2, "cannot name a forward"),
        (wanted(local_port=70000), 2, "local port `70000`"),
        (wanted(address=["999.1.1.1"]), 2, "`999.1.1.1` is no IP address"),
        (wanted(address=["127.0.0.1", "localhost"]), 2, "`localhost` is no IP address"),
        (wanted(hold_seconds=-1.0), 2, "holds connections"),
        (wanted(hold_connections=-1), 2, "holds connections"),
        (wanted(hold_seconds=float("nan")), 2, "holds connections"),
        (wanted(idle_seconds=0.5), 2, "forgotten after 1 to 86400 seconds"),
        (wanted(protocol="udp", route="tunnel"), 2, "a tunnel carries TCP only"),
        (wanted(protocol="tcp", idle_seconds=5.0), 2, "`--idle` is for UDP"),
        (ForwardSpec(target=Target(type="service", cluster="a b", service="web")), 2, "cluster's name"),
    ],
)
def test_a_wrong_spec_is_refused_whatever_exists(spec, code, message):
    with pytest.raises(KecsError) as caught:
        checks.check_spec(spec)

    assert (caught.value.exit_code, bool(caught.value.hint)) == (code, True)
    assert message in caught.value.message


def test_a_right_spec_is_not_refused():
    checks.check_spec(wanted(local_port=8080, target_port="http", address=["127.0.0.1", "::1"], name="mine"))
    checks.check_spec(msgspec.structs.replace(wanted(), hold_seconds=0.0))


def test_a_tunnel_is_refused_where_there_is_no_kubernetes():
    with pytest.raises(KecsError) as caught:
        checks.check_route(wanted(route="tunnel"), "local")

    assert (caught.value.exit_code, caught.value.hint) == (2, "leave `--route` away")
    checks.check_route(wanted(route="direct"), "local")
    checks.check_route(wanted(route="tunnel"), "kubernetes")
