"""What a shim is told: environments, ports, users, health checks."""

from __future__ import annotations

import os
import pwd
from typing import Any

import msgspec
import pytest
from tests.runtimes.world import container, task

from kecs.runtimes import orders, users
from kecs.runtimes.base import ContainerSpec, HealthCheck, PortSpec


def environment(*containers: ContainerSpec, kept: dict[str, str] | None = None) -> dict[str, str]:
    return orders.environment(task(*containers), containers[0], kept or {})


def ports(*members: dict[str, Any]) -> list[PortSpec]:
    return [msgspec.convert(each, PortSpec) for each in members]


def test_a_port_is_the_machines_or_else_the_containers() -> None:
    """awsvpc and bridge have a port of this machine; in host mode it is the container's own."""
    one = msgspec.structs.replace(
        container("one", ["true"]),
        ports=ports({"container_port": 80, "host_port": 29000, "name": "my-web"}, {"container_port": 9000}),
    )
    found = environment(one)

    assert {k: v for k, v in found.items() if k.startswith("PORT")} == {
        "PORT": "29000", "PORT_80": "29000", "PORT_MY_WEB": "29000", "PORT_9000": "9000",
    }  # fmt: skip
    assert orders.order(task(one), {}, "/")["containers"][0]["ports"] == [9000, 29000]


def test_each_container_sees_its_own_of_two_equal_ports() -> None:
    """In bridge mode two containers can both have port 80; TCP goes before UDP."""
    one = msgspec.structs.replace(
        container("one", ["true"]), ports=ports({"container_port": 80, "host_port": 29000})
    )
    two = msgspec.structs.replace(
        container("two", ["true"]),
        ports=ports(
            {"container_port": 80, "host_port": 29001},
            {"container_port": 80, "host_port": 29002, "protocol": "udp"},
        ),
    )

    assert environment(one, two)["PORT_80"] == "29000"
    assert environment(two, one)["PORT_80"] == "29001"
    assert orders.order(task(two), {}, "/")["containers"][0]["ports"] == [29001]
    assert "PORT" not in environment(container("none", ["true"]), one)


def test_only_what_is_kept_is_inherited() -> None:
    """PATH, HOME, USER, LANG, LC_*, TMPDIR; a PATH there always is."""
    kept = {"HOME": "/h", "LC_TIME": "sv_SE", "LD_PRELOAD": "x", "AWS_SECRET_ACCESS_KEY": "x"}
    found = environment(container("one", ["true"]), kept=kept)

    assert (found["HOME"], found["LC_TIME"], found["PATH"]) == ("/h", "sv_SE", os.defpath)
    assert found.keys() & {"LD_PRELOAD", "AWS_SECRET_ACCESS_KEY", "USER"} == set()


@pytest.mark.parametrize(
    ("given", "folder"), [(None, "/start"), ("/abs", "/abs"), ("sub/folder", "/start/sub/folder")]
)
def test_the_working_directory(given: str | None, folder: str) -> None:
    """The instance's folder unless another is given; a relative one is below it."""
    one = container("one", ["true"], working_directory=given)
    assert orders.order(task(one), {}, "/start")["containers"][0]["directory"] == folder


@pytest.mark.parametrize(
    ("command", "argv"),
    [
        (["CMD-SHELL", "curl -f localhost || exit 1"], ["/bin/sh", "-c", "curl -f localhost || exit 1"]),
        (["CMD", "curl", "-f"], ["curl", "-f"]),
        (["curl", "-f"], ["curl", "-f"]),
        (["NONE"], None),
        (["CMD"], None),
        (["CMD-SHELL"], None),
    ],
)
def test_the_command_of_a_health_check(command: list[str], argv: list[str] | None) -> None:
    """With and without a shell; one that says nothing is none."""
    one = msgspec.structs.replace(container("one", ["true"]), health_check=HealthCheck(command=command))
    check = orders.order(task(one), {}, "/")["containers"][0]["healthCheck"]
    assert (check and check["argv"]) == argv


def test_the_environment_of_another_user() -> None:
    """HOME and USER are the user's own; one without an entry has `/` and no name."""
    one = container("one", ["true"])
    kept = {"HOME": "/root", "USER": "root"}
    known = orders.environment(task(one), one, kept, users.User(5, 5, [5], "games", "/usr/games"))
    assert (known["HOME"], known["USER"]) == ("/usr/games", "games")
    unknown = orders.environment(task(one), one, kept, users.User(54321, 0, [0]))
    assert unknown["HOME"] == "/"
    assert "USER" not in unknown


def test_users_by_name_id_and_group() -> None:
    """Docker's forms; whoever runs KECS needs no change."""
    me = pwd.getpwuid(os.getuid())
    assert users.resolve(me.pw_name) is None
    assert users.resolve(str(os.getuid())) is None
    if os.getuid() == 0:
        found = users.resolve("54321:nogroup")
        assert found is not None
        assert (found.uid, found.name, found.groups) == (54321, None, [found.gid])
        assert users.resolve("nobody") == users.resolve("65534")
        assert (users.resolve("nobody:7") or found).gid == 7


def test_only_root_can_run_as_somebody_else(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is an error at the start, not a process of the wrong user."""
    monkeypatch.setattr(os, "getuid", lambda: 12345)
    with pytest.raises(users.NoSuchUser, match='only root can run a container as user "nobody"'):
        users.resolve("nobody")
    with pytest.raises(users.NoSuchUser, match="there is no user"):
        users.resolve("no-such-user")
