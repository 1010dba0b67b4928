"""What is exported is a port-forward file that asks for the same forwards."""

from __future__ import annotations

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from kecs.forward.export import export
from kecs.forward.file import parse
from kecs.forward.spec import ForwardSpec, Notify, Probe, Retry, Target

REGION = "us-east-1"


def test_a_file_reads_as_a_person_would_write_it():
    text = export(
        [
            ForwardSpec(
                target=Target(type="service", cluster="prod", service="web", region=REGION),
                name="web",
                local_port=8080,
                target_port=80,
            ),
            ForwardSpec(
                target=Target(type="task", cluster="dev", tags={"Part": "yes"}, region="eu-west-1"),
                name="debug",
                local_port=9229,
                target_port="http",
                auto_reconnect=False,
                retry=Retry(max=30),
                probe=Probe(),
                notify=Notify(desktop=True),
                hold_seconds=5,
            ),
        ],
        region=REGION,
        names=True,
    )

    assert (
        text.partition("\n")[2]
        == """\
version: '1'
names: true
forwards:
- name: web
  type: service
  cluster: prod
  service: web
  localPort: 8080
  targetPort: 80
- name: debug
  type: task
  cluster: dev
  region: eu-west-1
  tags:
    Part: 'yes'
  localPort: 9229
  targetPort: http
  autoReconnect: false
  hold:
    seconds: 5
  retry:
    max: 30
  probe: {}
  notify:
    desktop: true
"""
    )


NAMES = st.from_regex(r"[A-Za-z0-9_-]{1,20}", fullmatch=True)
TEXT = st.text(st.characters(codec="utf-8", categories=["L", "N", "P", "S", "Zs"]), max_size=12)
TARGETS = st.one_of(
    st.builds(Target, type=st.just("service"), cluster=NAMES, service=NAMES),
    st.builds(
        Target,
        type=st.just("task"),
        cluster=NAMES,
        task=st.from_regex(r"[0-9a-f]{8,32}", fullmatch=True),
    ),
    st.builds(
        Target, type=st.just("task"), cluster=NAMES, tags=st.dictionaries(TEXT, TEXT, min_size=1, max_size=3)
    ),
)
NUMBERS = st.floats(0.1, 3600)
SPECS = st.builds(
    ForwardSpec,
    target=TARGETS,
    name=st.from_regex(r"x[A-Za-z0-9._-]{0,20}", fullmatch=True),
    local_port=st.integers(1, 65535),
    target_port=st.one_of(st.integers(1, 65535), st.sampled_from(["http", "0x1f", "no", "1_000", "null"])),
    protocol=st.just("tcp"),
    address=st.sampled_from([[], ["0.0.0.0"], ["127.0.0.1", "::1"]]),
    auto_reconnect=st.booleans(),
    route=st.sampled_from(["auto", "direct", "tunnel"]),
    hold_seconds=st.floats(0, 3600),
    hold_connections=st.integers(0, 65536),
    retry=st.builds(
        Retry,
        initial=NUMBERS,
        factor=st.floats(1, 100),
        max=NUMBERS,
        jitter=st.floats(0, 0.9),
        attempts=st.integers(0, 1_000_000),
    ),
    probe=st.one_of(
        st.none(), st.builds(Probe, type=st.just("http"), path=st.just("/healthz?x=#"), interval=NUMBERS)
    ),
    notify=st.one_of(
        st.none(),
        st.builds(Notify, desktop=st.just(True), command=st.lists(TEXT, max_size=3)),
        st.just(Notify(webhook="https://example.com/hook")),
    ),
)


UDP = st.builds(
    ForwardSpec,
    target=TARGETS,
    name=st.from_regex(r"x[A-Za-z0-9._-]{0,20}", fullmatch=True),
    local_port=st.integers(1, 65535),
    target_port=st.one_of(st.integers(1, 65535), st.just("dns")),
    protocol=st.just("udp"),
    route=st.sampled_from(["auto", "direct"]),
    idle_seconds=st.floats(1, 86400),
)
SPECS = st.one_of(SPECS, UDP)


@given(
    st.lists(SPECS, max_size=4, unique_by=(lambda one: one.name, lambda one: one.local_port)), st.booleans()
)
def test_what_is_exported_parses_back_to_the_same(specs, names):
    """Whatever words stand in tags and commands, e.g. `no`, `0x1f`, `é` or `#`."""
    free = set(range(1, 10)) - {one.local_port for one in specs}
    specs = [
        msgspec.structs.replace(
            one,
            strict=bool(one.target.tags) and one.hold_connections % 2 == 0,
            publish=free.pop() if one.target.service and one.hold_connections % 3 else None,
        )
        for one in specs
    ]
    file = parse(export(specs, region=REGION, names=names), "exported.yaml")

    assert list(file.forwards) == specs
    assert file.names is names
