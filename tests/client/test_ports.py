"""Ports that other instances' files name."""

from __future__ import annotations

from kecs import files
from kecs.client.ports import named_ports
from kecs.paths import InstancePaths


def test_ports_of_other_instances_count_running_or_not(home):
    home.instance("default", api_port=5373)
    home.instance("two", api_port=5374, desired="stopped")
    home.forwards({"name": "a", "localPort": 20000}, {"name": "b", "localPort": 20001})

    assert named_ports(home.path, "two") == {5373, 20000, 20001}
    assert named_ports(home.path, "default") == {5374}
    assert named_ports(home.path, None) == {5373, 5374, 20000, 20001}


def test_a_home_without_instances_names_no_port(home):
    assert named_ports(home.path / "nowhere", None) == set()


def test_a_broken_or_newer_neighbour_does_not_hurt(home):
    home.instance("broken")
    InstancePaths(home.path, "broken").instance_file.write_text("{")
    home.instance("newer")
    files.write_yaml(
        InstancePaths(home.path, "newer").instance_file, {"version": 99, "deep": [{"apiPort": 7000}]}
    )
    home.instance("odd")
    odd = {"version": 1, "apiPort": "x", "localPort": 0, "other": 9}
    files.write_yaml(InstancePaths(home.path, "odd").instance_file, odd)

    assert named_ports(home.path, None) == {7000}
