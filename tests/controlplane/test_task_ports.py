"""KECS ports: one for each container port, none twice, none of a stranger, none within a minute."""

import contextlib
import socket

import pytest
from tests.controlplane.world import state_of, task

from kecs.controlplane.retention import forget_old
from kecs.controlplane.task_ports import NoPortLeftError, TaskPorts, can_bind, release
from kecs.ecs.model import LocalPort, TaskPort


def ports(first=29999, last=29990, free=lambda number: True, named=frozenset()):
    return TaskPorts(range(first, last - 1, -1), free, lambda: set(named))


def port(number=80, **members):
    return TaskPort(container=members.pop("container", "web"), container_port=number, **members)


def numbers(chosen):
    return [each.host_port for each in chosen]


def test_ports_are_chosen_from_the_top_and_those_in_use_are_left_out():
    used = LocalPort(port=29999, region="r", task_id="t")
    recent = LocalPort(port=29998, region="r", task_id="t", released_at=1.0)
    chooser = ports(free=lambda number: number != 29997, named={29996})
    chosen = chooser.choose(state_of(used, recent), task(ports=[port(80), port(81)]))

    assert numbers(chosen) == [29995, 29994]
    assert not any(each.ready for each in chosen)


def test_a_choice_is_reserved_until_it_is_committed_or_given_back():
    chooser = ports()
    first = chooser.choose(state_of(), task(ports=[port()]))
    second = chooser.choose(state_of(), task(ports=[port()]))
    chooser.give_back(first)
    third = chooser.choose(state_of(), task(ports=[port()]))

    assert numbers(first + second + third) == [29999, 29998, 29999]


def test_tcp_and_udp_of_one_container_port_have_one_number():
    chosen = ports().choose(state_of(), task(ports=[port(53), port(53, protocol="udp"), port(54)]))

    assert numbers(chosen) == [29999, 29999, 29998]


@pytest.mark.parametrize(
    ("mode", "given", "expected"), [("bridge", 8080, 8080), ("bridge", 0, 29999), ("host", 0, 80)]
)
def test_network_modes_other_than_awsvpc_keep_the_port_that_is_asked_for(mode, given, expected):
    chosen = ports().choose(state_of(), task(network_mode=mode, ports=[port(host_port=given)]))

    assert numbers(chosen) == [expected]


def test_only_chosen_ports_become_rows():
    chooser = ports()
    one = task(network_mode="bridge", ports=[port(80, host_port=8080), port(81)])
    chosen = chooser.choose(state_of(), one)
    draft = state_of().draft()
    chooser.commit(draft, one, chosen)

    assert [(row.port, row.task_id) for row in draft.scan(LocalPort)] == [(29999, one.id)]


def test_when_no_port_is_left_the_range_is_named():
    with pytest.raises(NoPortLeftError, match="between 29990 and 29999"):
        ports(free=lambda number: False).choose(state_of(), task(ports=[port()]))


def test_a_release_touches_the_tasks_own_rows_only():
    one = task(ports=[port(host_port=29999), port(81, host_port=29998)])
    mine = LocalPort(port=29999, region="r", task_id=one.id)
    other = LocalPort(port=29998, region="r", task_id="another")
    draft = state_of(mine, other).draft()
    release(draft, one, 5.0)

    assert {row.port: row.released_at for row in draft.scan(LocalPort)} == {29999: 5.0, 29998: None}


def test_a_released_port_is_given_again_after_a_minute():
    row = LocalPort(port=29999, region="r", task_id="t", released_at=100.0)
    draft = state_of(row).draft()
    forget_old(draft, 159.0)
    assert draft.scan(LocalPort) == [row]
    forget_old(draft, 161.0)
    assert draft.scan(LocalPort) == []


@pytest.mark.parametrize("address", ["127.0.0.1", "0.0.0.0"])
def test_a_port_with_a_listener_cannot_be_bound(address):
    with contextlib.closing(socket.socket()) as stranger:
        stranger.bind((address, 0))
        stranger.listen()
        taken = stranger.getsockname()[1]

        assert not can_bind(taken)

    assert can_bind(taken)


def test_a_port_with_a_udp_socket_cannot_be_bound():
    with contextlib.closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as stranger:
        stranger.bind(("127.0.0.1", 0))

        assert not can_bind(stranger.getsockname()[1])
