"""A port-forward file: what it means, and for all that can be wrong the line, the column and the key."""

from __future__ import annotations

import contextlib

import pytest
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from kecs.forward import spec as specs
from kecs.forward.file import FileSpec, WrongFile, parse
from kecs.forward.spec import AutoSpec, ForwardSpec, Notify, Probe, Retry, Target

SAMPLE = """\
# The sample file that `kecs port-forward run --config` must take as it is.
version: "1"
forwards:
  - name: web-service
    type: service
    cluster: production
    service: webapp
    localPort: 8080
    targetPort: 80
    autoReconnect: true

  - name: api-service
    type: service
    cluster: production
    service: api
    localPort: 3000
    targetPort: 3000
    autoReconnect: true

  - name: debug-task
    type: task
    cluster: development
    tags:
      Environment: dev
      Component: worker
    localPort: 9229
    targetPort: 9229
    autoReconnect: false
"""
TWO_OF_ONE_PORT = """\
version: "1"
forwards:
- {name: a, type: service, service: w, targetPort: 1, localPort: 80}
- {name: b, type: service, service: w, targetPort: 1, localPort: 80, address: 0.0.0.0}
"""
WEB = "{name: web, type: service, service: web, targetPort: 80}"


@pytest.fixture(params=["C", "Python"], autouse=True)
def loader(request, monkeypatch):
    """PyYAML with libyaml and without must say the same."""
    if request.param == "Python":
        monkeypatch.setattr(yaml, "CSafeLoader", yaml.SafeLoader)


any_loader = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
"""The loader is the same for all examples of a test."""


def wrong(source):
    """The errors of a file, as `line:column key message`."""
    with pytest.raises(WrongFile) as caught:
        parse(source, "pf.yaml")
    for error in caught.value.errors:
        assert error.path == "pf.yaml"
        assert error.line >= 1
        assert error.column >= 1
        assert str(error).startswith(f"pf.yaml:{error.line}:{error.column}: ")
    return [f"{one.line}:{one.column} {one.key} {one.message}" for one in caught.value.errors]


def one_forward(**members):
    """A file of one forward in flow style."""
    line = {"name": "a", "type": "service", "service": "web", "targetPort": "80"} | members
    inner = ", ".join(f"{key}: {value}" for key, value in line.items() if value is not None)
    return f'version: "1"\nforwards:\n  - {{{inner}}}\n'


def test_the_sample_of_the_design():
    file = parse(SAMPLE, "port-forward.yaml")

    assert [one.name for one in file.forwards] == ["web-service", "api-service", "debug-task"]
    assert file.forwards[0] == ForwardSpec(
        target=Target(type="service", cluster="production", service="webapp"),
        name="web-service",
        local_port=8080,
        target_port=80,
        protocol="tcp",
    )
    assert file.forwards[2] == ForwardSpec(
        target=Target(type="task", cluster="development", tags={"Environment": "dev", "Component": "worker"}),
        name="debug-task",
        local_port=9229,
        target_port=9229,
        protocol="tcp",
        auto_reconnect=False,
    )
    assert (file.auto, file.names) == (None, False)


@pytest.mark.parametrize(
    "text", ['version: "1"', "version: 1", "\ufeffversion: '1'", b'\xef\xbb\xbfversion: "1"\r\n']
)
def test_a_file_may_define_nothing(text):
    assert parse(text, "f") == FileSpec()


def test_everything_that_a_forward_can_say():
    (forward,) = parse(
        """\
version: "1"
forwards:
- name: all
  type: task
  cluster: dev
  tags: {Part: worker, "Version": "1.0"}
  strict: true
  region: eu-west-1
  targetPort: http
  address: [0.0.0.0, "::1"]
  balance: least-connections
  autoReconnect: true
  route: tunnel
  hold: {seconds: 2.5, connections: 7}
  retry: {initial: 1, factor: 3, max: 60, jitter: 0, attempts: 4}
  probe: {type: http, path: /healthz, interval: 10, timeout: 1, failures: 2}
  notify: {desktop: true, command: [say, it], webhook: "https://example.com/h"}
""",
        "f",
    ).forwards

    assert forward == ForwardSpec(
        target=Target(
            type="task", cluster="dev", tags={"Part": "worker", "Version": "1.0"}, region="eu-west-1"
        ),
        name="all",
        target_port="http",
        protocol="tcp",
        address=["0.0.0.0", "::1"],
        route="tunnel",
        hold_seconds=2.5,
        hold_connections=7,
        retry=Retry(initial=1, factor=3, max=60, jitter=0, attempts=4),
        probe=Probe(type="http", path="/healthz", interval=10, timeout=1, failures=2),
        notify=Notify(desktop=True, command=["say", "it"], webhook="https://example.com/h"),
        strict=True,
    )


def test_a_forward_of_udp():
    first, second = parse(
        """\
version: "1"
defaults:
  hold: {seconds: 5}
  probe: {}
  idle: 20
forwards:
- {name: dns, type: service, service: dns, localPort: 5353, targetPort: 53, protocol: udp}
- {name: same, type: service, service: dns, localPort: 5353, targetPort: 53, protocol: tcp}
""",
        "f",
    ).forwards

    assert (first.protocol, first.idle_seconds, first.probe, first.hold_seconds) == ("udp", 20.0, None, 30.0)
    assert (second.protocol, second.idle_seconds, second.probe) == ("tcp", 60.0, Probe())
    assert second.hold_seconds == 5.0


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (
            "protocol: udp, probe: {}",
            "f:1:94: forwards[0].probe: a forward of `protocol: udp` has no `probe`",
        ),
        ("protocol: udp, hold: {seconds: 1}", "has no `hold`: UDP has no connections to hold"),
        ("protocol: udp, route: tunnel", "forwards[0].route: a tunnel carries TCP only"),
        ("idle: 5", "`idle` is for a forward of `protocol: udp`"),
        ("protocol: udp, idle: 0", "`idle` must be a number from 1 to 86400"),
        ("protocol: sctp", "`protocol` must be `tcp` or `udp`"),
    ],
)
def test_what_a_protocol_has_not(keys, message):
    text = f'{{version: "1", forwards: [{{name: a, type: service, service: b, targetPort: 1, {keys}}}]}}'
    with pytest.raises(WrongFile) as caught:
        parse(text, "f")
    assert message in str(caught.value)


def test_a_tunnel_of_the_defaults_is_no_way_for_udp():
    text = """\
version: "1"
defaults: {route: tunnel}
forwards:
- {name: a, type: service, service: b, targetPort: 1, protocol: udp}
"""
    with pytest.raises(WrongFile) as caught:
        parse(text, "f")
    assert "f:4:3: forwards[0].route: a tunnel carries TCP only" in str(caught.value)


def test_two_of_udp_cannot_have_one_port():
    text = """\
version: "1"
forwards:
- {name: a, type: service, service: b, localPort: 5353, targetPort: 53, protocol: udp}
- {name: b, type: service, service: b, localPort: 5353, targetPort: 54, protocol: udp}
"""
    with pytest.raises(WrongFile) as caught:
        parse(text, "f")
    assert "forwards[1].localPort: the port 5353 is taken by the forward in line 3" in str(caught.value)


def test_a_forwards_own_word_wins_over_the_defaults_key_by_key():
    first, second = parse(
        """\
version: "1"
region: eu-west-1
defaults:
  address: 127.0.0.1
  autoReconnect: false
  hold: {seconds: 5, connections: 9}
  retry: {max: 60}
  probe: {type: http, path: /up}
  notify: {desktop: true}
forwards:
- {name: a, type: service, service: web, targetPort: 80}
- name: b
  type: service
  service: web
  targetPort: 80
  region: us-west-2
  address: ["::1"]
  autoReconnect: true
  hold: {seconds: 1}
  retry: {attempts: 3}
  probe: null
  notify: {desktop: false}
""",
        "f",
    ).forwards

    assert (first.address, first.auto_reconnect, first.target.region) == (["127.0.0.1"], False, "eu-west-1")
    assert (first.hold_seconds, first.hold_connections, first.retry) == (5, 9, Retry(max=60))
    assert (first.probe, first.notify) == (Probe(type="http", path="/up"), Notify(desktop=True))
    assert (second.address, second.auto_reconnect, second.target.region) == (["::1"], True, "us-west-2")
    assert (second.hold_seconds, second.hold_connections) == (1, 9)
    assert (second.retry, second.probe, second.notify) == (Retry(max=60, attempts=3), None, None)


def test_a_region_in_the_defaults_is_nearer_than_the_files():
    text = f'version: "1"\nregion: eu-west-1\ndefaults: {{region: us-west-2}}\nforwards: [{WEB}]'
    assert parse(text, "f").forwards[0].target.region == "us-west-2"


@pytest.mark.parametrize(
    ("text", "clusters"),
    [
        ("auto: true", ["default"]),
        ("auto: true\nclusters: [b, a, b]", ["b", "a"]),
        (f"auto: true\nforwards: [{WEB.replace('}', ', cluster: prod}')}]", ["prod"]),
    ],
)
def test_auto_names_its_clusters_and_takes_the_defaults(text, clusters):
    head = 'version: "1"\nnames: true\ndefaults: {route: direct, hold: {seconds: 3}, region: eu-west-1}\n'
    file = parse(head + text, "f")

    assert file.auto == AutoSpec(clusters=clusters, route="direct", hold_seconds=3, region="eu-west-1")
    assert file.names
    assert parse('version: "1"\nauto: false', "f").auto is None


def test_one_port_may_be_listened_on_at_two_addresses():
    text = 'version: "1"\nforwards:\n' + "".join(
        f"- {{name: n{at}, type: service, service: w, targetPort: 1, localPort: 80, address: 127.0.0.{at}}}\n"
        for at in (2, 3)
    )
    assert len(parse(text, "f").forwards) == 2


@pytest.mark.parametrize(
    ("source", "found"),
    [
        # no YAML, or no such file
        ("", "1:1  the file is empty"),
        ("# nothing\n", "1:1  the file is empty"),
        ("- a", "1:1  the file must be a mapping of keys and values, not a list"),
        ("words", "1:1  the file must be a mapping of keys and values, not `words`"),
        ("version: '1'\nforwards: [", "no YAML"),
        ("version: '1'\n\tnames: true", "2:1  no YAML: a tab indents this line"),
        ("forwards:\n  - name: web\n\t  type: task", "3:1  no YAML: a tab indents this line"),
        ("version: '1'\n---\nversion: '1'", "2:1  no YAML"),
        ("version: *one", "1:10  no YAML"),
        ("version: '1'\nname\x07s: true", "2:5  the character U+0007"),
        (b"version: '1'\n# \xc3\xa4 \xff", "2:5  the byte 0xff is not UTF-8"),
        # versions
        ("names: true", "1:1 version `version` is missing"),
        ("version: 2", '1:10 version `version` must be `"1"`, the one format that this KECS reads, not `2`'),
        ('version: "1.0"', "1:10 version `version` must be"),
        ("version:", "not empty"),
        # keys
        ('version: "1"\nforward: []', "2:1 forward there is no key `forward`: did you mean `forwards`?"),
        ('version: "1"\nhold: {}', "2:1 hold there is no key `hold` here: there are `version`"),
        ('version: "1"\nnames: true\nnames: true', "3:1 names `names` is there twice, first in line 2"),
        ('version: "1"\n? [a]\n: b', "a key must be text"),
        ('version: "1"\ndefaults: &d {}\n<<: *d', "3:1 << `<<` is not supported"),
        ('version: "1"\nclusters: [a]', "2:1 clusters `clusters` says nothing without `auto: true`"),
        (
            'version: "1"\nauto: true\nclusters: []',
            "3:11 clusters `clusters` must be a list that is not empty",
        ),
        ('version: "1"\nauto: true\nclusters: [a, b c]', "3:15 clusters[1] what `clusters` lists must be"),
        ('version: "1"\ndefaults: {hold: {second: 1}}', "2:19 defaults.hold.second there is no key"),
        ('version: "1"\ndefaults: {name: a}', "2:12 defaults.name there is no key `name` here"),
        (one_forward(local_port="1"), "did you mean `localPort`?"),
        (one_forward(name=None), "3:5 forwards[0].name `name` is missing"),
        (one_forward(type=None), "3:5 forwards[0].type `type` is missing"),
        (one_forward(targetPort=None), "3:5 forwards[0].targetPort `targetPort` is missing"),
        # values
        (one_forward(name="agent"), "3:12 forwards[0].name `name` must be a forward's name"),
        (one_forward(name="pf-01234567"), "forwards[0].name"),
        (one_forward(name="a/b"), "forwards[0].name"),
        (one_forward(name="1"), 'not `1` (in quotes it is text: `"1"`)'),
        (one_forward(type="pod"), "`type` must be `service` or `task`, not `pod`"),
        (one_forward(service="prod/web"), "`service` must be a service's name"),
        (one_forward(cluster="no"), 'not `no` (in quotes it is text: `"no"`)'),
        (one_forward(localPort="0"), "`localPort` must be a port from 1 to 65535, not `0`"),
        (one_forward(localPort="65536"), "not `65536`"),
        (one_forward(localPort="'80'"), "not `80`"),
        (one_forward(localPort="22:22"), "not `22:22`"),
        (one_forward(localPort="0x50"), "not `0x50`"),
        (one_forward(localPort="010"), "not `010`"),
        (one_forward(localPort="80.0"), "not `80.0`"),
        (one_forward(localPort="true"), "not `true`"),
        (one_forward(localPort="''"), "not an empty text"),
        (one_forward(localPort="[80]"), "not a list"),
        (one_forward(localPort="{}"), "not an empty mapping"),
        (one_forward(localPort="2024-01-01"), "not `2024-01-01`"),
        (one_forward(localPort="!!int x"), "not `x`"),
        (one_forward(localPort="!port 80"), "not `80`"),
        (one_forward(targetPort="'80'"), "(a number is written without quotes), not `80`"),
        (one_forward(targetPort="0"), "`targetPort` must be a port from 1 to 65535, not `0`"),
        (one_forward(targetPort="null"), "`targetPort` must be a port from 1 to 65535 or the name"),
        (one_forward(autoReconnect="maybe"), "`autoReconnect` must be `true` or `false`, not `maybe`"),
        (one_forward(autoReconnect="!!bool x"), "`autoReconnect` must be `true` or `false`, not `x`"),
        (one_forward(address="here"), "`here` is no IP address"),
        (one_forward(address="['::1', fe80::1%eth0]"), "forwards[0].address[1] `fe80::1%eth0` is no IP"),
        (one_forward(address="[]"), "`address` must be"),
        (one_forward(balance="random"), "`balance` must be `least-connections`, not `random`"),
        (one_forward(route="best"), "`route` must be `auto`, `direct` or `tunnel`, not `best`"),
        (one_forward(hold="30"), "`hold` must be a mapping of keys and values, not `30`"),
        (one_forward(hold="{seconds: 30s}"), "`seconds` must be a number from 0 to 3600, not `30s`"),
        (one_forward(hold="{seconds: .inf}"), "not `.inf`"),
        (one_forward(hold="{seconds: .nan}"), "not `.nan`"),
        (one_forward(hold="{connections: 1.5}"), "`connections` must be a whole number from 0 to 65536"),
        (
            one_forward(retry="{jitter: 1}"),
            "forwards[0].retry.jitter `jitter` must be a number from 0 to 0.9",
        ),
        (one_forward(retry="{attempts: -1}"), "forwards[0].retry.attempts"),
        (one_forward(retry="null"), "`retry` must be a mapping of keys and values, not empty"),
        (one_forward(probe="{path: healthz}"), "`path` must be a path such as `/healthz`, not `healthz`"),
        (one_forward(notify="{webhook: example.com}"), "`webhook` must be a URL that begins with"),
        (one_forward(notify="{command: say it}"), "`command` must be a list, not `say it`"),
        # what goes together
        (one_forward(service=None), "3:5 forwards[0] a forward of `type: service` needs its `service`"),
        (one_forward(task="0123abcd"), "forwards[0].task `task` is for a forward of `type: task`"),
        (one_forward(publish="0"), "`publish` must be a port from 1 to 65535, not `0`"),
        (
            one_forward(type="task", service=None, task="0123abcd", publish="18080"),
            "forwards[0].publish `publish` is for a forward of `type: service`",
        ),
        (
            one_forward(localPort="18080", publish="18080"),
            "forwards[0].localPort the port 18080 is published in line 3: Docker listens on it",
        ),
        (
            TWO_OF_ONE_PORT.replace("localPort: 80", "publish: 80"),
            "4:64 forwards[1].publish the port 80 is published by the forward in line 3",
        ),
        (
            TWO_OF_ONE_PORT.replace("localPort: 80}", "publish: 80}"),
            "4:66 forwards[1].localPort the port 80 is published in line 3: Docker listens on it",
        ),
        (one_forward(strict="true"), "forwards[0].strict `strict` is for a forward of `type: task`"),
        (
            one_forward(type="task", task="0123abcd"),
            "forwards[0].service `service` is for a forward of `type: service`",
        ),
        (one_forward(type="task", service=None), "needs its `task` or its `tags`"),
        (one_forward(type="task", service=None, task="012"), "`task` must be a task's id"),
        (one_forward(type="task", service=None, tags="{}"), "`tags` must be a mapping of keys and values"),
        (
            one_forward(type="task", service=None, tags="{A: 1}"),
            "forwards[0].tags.A `A` must be text, not `1`",
        ),
        (one_forward(type="task", service=None, tags="{A: b, A: c}"), "`A` is there twice"),
        (
            one_forward(type="task", service=None, tags="{A: b}", task="0123abcd"),
            "`task` names the task already: leave `tags` out",
        ),
        (
            one_forward(type="task", service=None, task="0123abcd", strict="true"),
            "is for a forward with `tags`",
        ),
        (
            f'version: "1"\nforwards:\n- {WEB}\n- {WEB}',
            "4:10 forwards[1].name the name `web` is taken by the forward in line 3",
        ),
        (
            TWO_OF_ONE_PORT,
            "4:66 forwards[1].localPort the port 80 is taken by the forward in line 3",
        ),
        ('version: "1"\nforwards: {}', "2:11 forwards `forwards` must be a list"),
        (
            'version: "1"\nforwards: [7]',
            "what `forwards` lists must be a mapping of keys and values, not `7`",
        ),
    ],
)
def test_what_is_wrong_is_said_with_its_place(source, found):
    (error,) = wrong(source)

    assert found in error


def test_all_that_is_wrong_is_said_at_once_in_the_order_of_the_lines():
    assert [error.partition(" ")[0] for error in wrong(
        """\
version: "1"
forwards:
  - name: a
    type: service
    localPort: 22:30
    targetPort: 80
  - type: task
    tags: {A: b}
    name: a
    targetPort: 80
    retry: {jitter: 5}
clusters: [x]
"""
    )] == ["3:5", "5:16", "9:11", "11:21", "12:1"]  # fmt: skip


def test_what_is_shown_of_a_value_is_short_and_on_one_line():
    (error,) = wrong(f'version: "1"\nnames: "{"x" * 100}\\n\\e[2J"')

    assert len(error) < 130
    assert "\x1b" not in error
    (error,) = wrong('version: "1"\nnames: "a\\n\\e[2Jb"')
    assert error.isprintable()
    (error,) = wrong('version: "1"\n"\\e[2Jb": "a\\n\\e[2Jb"')
    assert error.isprintable()


def test_deep_nesting_and_cycles_are_only_wrong():
    assert wrong("[" * 20_000)
    assert wrong("version: '1'\nforwards: &all [*all, *all]")
    assert wrong("a: &a {b: *a}")


@any_loader
@given(st.one_of(st.text(max_size=60), st.binary(max_size=60)))
@example("version: !!float 1_0")
@example("!!set {version}")
@example("? |\n  a\n: b")
def test_any_text_is_a_file_or_wrong(loader, source):
    """Nothing but `WrongFile` comes out, with a place within the text."""
    try:
        parse(source, "f")
    except WrongFile as error:
        text = source if isinstance(source, str) else source.decode(errors="replace")
        for one in error.errors:
            assert 1 <= one.line <= len(text.splitlines()) + 2
            assert one.column >= 1


VALUES = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(-5, 70000), st.floats(), st.sampled_from(["a", "::1", ""])
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=2),
        st.dictionaries(st.sampled_from(["seconds", "type", "path", "A", "command"]), inner, max_size=2),
    ),
    max_leaves=4,
)
KEYS = [*ForwardSpec.__struct_encode_fields__, "type", "service", "tags", "task", "cluster", "hold", "region"]


@any_loader
@given(
    st.dictionaries(st.sampled_from(KEYS), VALUES, max_size=4), st.dictionaries(st.sampled_from(KEYS), VALUES)
)
def test_what_is_accepted_is_a_sound_spec(loader, forward, defaults):
    """Whatever is put into a good forward or the defaults: an error, or a spec that the agent accepts too."""
    good = {"name": "a", "type": "service", "service": "web", "targetPort": 80}
    document = {"version": "1", "defaults": defaults, "forwards": [good | forward]}
    with contextlib.suppress(WrongFile):
        for one in parse(yaml.safe_dump(document), "f").forwards:
            specs.check(one)


def test_a_published_port_is_read_and_may_be_a_local_one_on_another_address():
    text = one_forward(localPort="18080", publish="18080", address="'::1'")

    (forward,) = parse(text, "pf.yaml").forwards
    assert (forward.publish, forward.local_port) == (18080, 18080)
