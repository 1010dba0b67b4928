"""What is typed behind `port-forward start` beyond target and ports, and what it means."""

from __future__ import annotations

import pytest

from kecs.cli import forward_typed as typed
from kecs.errors import ExitCode, KecsError
from kecs.forward.spec import ForwardSpec, Notify, Probe, Retry, Target


def specs(kind: str = "service", target: str = "prod/web", **options: object) -> list[ForwardSpec]:
    nothing = dict.fromkeys(("local_port", "target_port", "name", "region"))
    return typed.specs(kind, **(nothing | {"target": target, "ports": (), "address": ()} | options))


def test_tags_find_a_task_in_the_cluster_that_is_named():
    one = specs("task", "dev", tags=("Environment=dev", "Component=worker", "Note=a=b"), strict=True)[0]
    assert one.target == Target(
        type="task", cluster="dev", tags={"Environment": "dev", "Component": "worker", "Note": "a=b"}
    )
    assert one.strict


def test_the_promises_of_each_forward_are_those_that_were_typed():
    made = specs(
        ports=("8080:80", ":81"),
        auto_reconnect=False,
        hold="seconds=5,connections=2",
        retry="attempts=3,max=9.5",
        probe="http:/healthz?full=1",
        notify=("desktop", "command:notify 'two words'", "https://hooks.example/x"),
    )
    assert len(made) == 2
    for one in made:
        assert (one.auto_reconnect, one.hold_seconds, one.hold_connections) == (False, 5.0, 2)
        assert one.retry == Retry(attempts=3, max=9.5)
        assert one.probe == Probe(type="http", path="/healthz?full=1")
        assert one.notify == Notify(
            desktop=True, command=["notify", "two words"], webhook="https://hooks.example/x"
        )


def test_what_is_not_typed_is_as_a_file_that_does_not_say_it():
    assert specs()[0] == ForwardSpec(target=Target(type="service", cluster="prod", service="web"))


def test_tcp_and_udp_of_one_local_number_are_two_ports():
    first, second = specs(ports=("5353:53", "5353:53/udp"), idle=None)
    assert (first.protocol, second.protocol) == (None, "udp")
    assert (first.local_port, second.local_port) == (5353, 5353)
    with pytest.raises(KecsError, match="the local port 5353 is given twice"):
        specs(ports=("5353:53/udp", "5353:54/udp"))
    assert specs(target_port="dns/udp", idle="5")[0].idle_seconds == 5.0


@pytest.mark.parametrize("text", ["0", "soon", "", "nan", "inf", "86401"])
def test_no_time_of_silence(text):
    with pytest.raises(KecsError, match="is no number of seconds from 1 to 86400") as caught:
        specs(idle=text)
    assert caught.value.exit_code == ExitCode.USAGE


@pytest.mark.parametrize(
    ("text", "probe"),
    [
        ("tcp", Probe()),
        ("http", Probe(type="http")),
        ("http:/", Probe(type="http")),
        ("http:/a:b", Probe(type="http", path="/a:b")),
    ],
)
def test_probes(text, probe):
    assert typed.read_probe(text) == probe


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"tags": ("a",)}, "`a` is no tag"),
        ({"tags": ("=b",)}, "`=b` is no tag"),
        ({"tags": ("a=b", "a=c")}, "`a` is given twice"),
        ({"strict": True}, "`--strict` is about tags"),
        ({"probe": "udp"}, "`udp` is no probe"),
        ({"probe": "tcp:80"}, "`tcp:80` is no probe"),
        ({"probe": "http:healthz"}, "`http:healthz` is no probe"),
        ({"notify": ("mail",)}, "`mail` names nobody"),
        ({"notify": ("command:",)}, "`command:` names nobody"),
        ({"notify": ("command:'x",)}, "is no command"),
        ({"notify": ("desktop", "desktop")}, "two of a kind"),
        ({"retry": "attempts=1.5"}, "no whole number"),
        ({"retry": "often"}, "at `often`"),
        ({"retry": "max=-1"}, "at `max=-1`"),
        ({"retry": "max=nan"}, "at `max=nan`"),
        ({"retry": "max=1,max=2"}, "at `max=2`"),
        ({"retry": ""}, "at ``"),
        ({"hold": "seconds=inf"}, "at `seconds=inf`"),
        ({"hold": "connections=0.5"}, "no whole number"),
    ],
)
def test_what_cannot_be_meant_is_a_usage_error(options, says):
    with pytest.raises(KecsError) as caught:
        specs("task", "dev" if options.get("tags") else "dev/01234567", **options)
    assert says in caught.value.message
    assert caught.value.exit_code == ExitCode.USAGE
    assert caught.value.hint
