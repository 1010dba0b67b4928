"""Where metrics are served, as `instance.yaml` keeps it, and what that means for others."""

from __future__ import annotations

import pytest

from kecs import files
from kecs.client import instance as instances
from kecs.client import lifetime
from kecs.client.lifetime import Wishes
from kecs.client.ports import named_ports
from kecs.errors import ExitCode, KecsError

HERE, THERE = "127.0.0.1:9400", "[::1]:9401"


def start(home, wish=None):
    wishes = Wishes(environment={"PATH": "/bin"}, directory="/tmp", metrics_address=wish)
    return lifetime.start(home.paths, wishes, lambda _text: None).instance.metrics_address


def stop(home):
    lifetime.stop(home.paths, lambda _text: None)


def test_the_address_is_kept_until_another_or_none_is_wished_for(home):
    found = []
    for wish in (None, HERE, None, "localhost:9402", THERE, "off", None):
        found.append(start(home, wish))
        assert instances.require(home.paths).metrics_address == found[-1]
        stop(home)

    assert found == [None, HERE, HERE, "127.0.0.1:9402", THERE, None, None]


def test_what_is_no_address_creates_nothing(home):
    with pytest.raises(KecsError) as caught:
        start(home, "9400")
    assert caught.value.exit_code == ExitCode.USAGE
    assert not home.paths.root.exists()


@pytest.mark.parametrize(("before", "wish"), [(None, HERE), (HERE, THERE), (HERE, "off")])
def test_another_address_than_the_running_one_is_a_conflict_that_names_the_way(home, before, wish):
    start(home, before)
    with pytest.raises(KecsError) as caught:
        start(home, wish)

    assert caught.value.exit_code == ExitCode.CONFLICT
    assert f"agent restart --metrics-address {wish}" in caught.value.hint
    assert instances.require(home.paths).metrics_address == before


@pytest.mark.parametrize(("before", "wish"), [(None, "off"), (HERE, HERE), (HERE, None)])
def test_the_same_address_again_is_no_conflict(home, before, wish):
    start(home, before)
    assert start(home, wish) == before


def test_other_instances_do_not_choose_its_port(home):
    home.instance("one", api_port=5373, metrics_address=THERE)
    home.instance("odd", api_port=5374)
    file = home.path / "instances" / "odd" / "instance.yaml"
    files.write_yaml(file, {"version": 1, "metricsAddress": "what:ever"})

    assert named_ports(home.path, "two") == {5373, 9401}
