"""Each command with each kind of bad input: one error, a hint, the right exit code, nothing started."""

from __future__ import annotations

import pytest

from kecs.client import instance as instances

SERVICE = ("port-forward", "start", "service")


@pytest.mark.parametrize(
    ("arguments", "says", "hint"),
    [
        (("nonsense",), "`nonsense`", "kecs --help"),
        (("statsu",), "`statsu`", "did you mean `status`"),
        (("pf", "lst"), "`lst`", "did you mean `list`"),
        (("status", "--outptu"), "`--outptu`", "did you mean `--output`"),
        (("status", "extra"), "extra", "kecs status --help"),
        (("status", "-i", "No_Good"), "`No_Good`", "a-z"),
        (("status", "-i", "x" * 28), "x" * 28, "1 to 27"),
        (("start", "--port", "99999"), "99999", ""),
        (("start", "--port", "-1"), "-1", ""),
        (("start", "--port", "http"), "`http`", ""),
        (("start", "--runtime", "magic"), "`magic`", "`local`"),
        (("start", "--region", "not a region"), "`not a region`", "us-east-1"),
        (("env", "--shell", "tcsh"), "`tcsh`", ""),
        (("completion", "tcsh"), "`tcsh`", ""),
        (("completion",), "missing argument", ""),
        (("explain", "cluster", "x"), "`cluster`", ""),
        (("explain", "service"), "missing argument", ""),
        (("explain", "service", "a/b/c"), "`a/b/c`", "cluster/name"),
        (("explain", "service", "/b"), "`/b`", "cluster/name"),
        (("explain", "service", ""), "``", "cluster/name"),
        (("logs",), "no service", "kecs logs"),
        (("logs", "web", "--daemon", "agent"), "`--daemon`", "kecs logs"),
        (("logs", "--daemon", "tui"), "`tui`", ""),
        (("logs", "a/"), "`a/`", "cluster/name"),
        (("secrets", "set"), "missing argument", ""),
        (("secrets", "set", "two words", "x"), "`two words`", "valueFrom"),
        (("secrets", "set", "a", "x", "--from-file", "y"), "--from-file", "one of them"),
        (("secrets", "rm"), "missing argument", ""),
        (("destroy", "--now"), "`--now`", ""),
        (("start", "--runtime", "kubernetes", "--node-ports", "30000"), "`30000`", "30000-32767"),
        (("start", "--runtime", "kubernetes", "--node-ports", "9-1"), "`9-1`", "30000-32767"),
        (("start", "--metrics-address", "9400"), "`9400`", "127.0.0.1:9400"),
        (("port-forward", "agent", "restart", "--metrics-address", "all:1"), "`all:1`", "127.0.0.1:9400"),
        (("start", "--context", "kind"), "`--context`", "--runtime kubernetes"),
        (("start", "--kubeconfig", "x", "--runtime", "local"), "`--kubeconfig`", "--runtime kubernetes"),
        ((*SERVICE,), "missing argument", ""),
        ((*SERVICE, ""), "empty", "cluster/service"),
        ((*SERVICE, "a/b/c"), "`a/b/c`", "cluster/service"),
        ((*SERVICE, "/web"), "`/web`", "cluster/service"),
        ((*SERVICE, "a/"), "`a/`", "cluster/service"),
        ((*SERVICE, "a b"), "`a b`", "cluster/service"),
        ((*SERVICE, "arn:aws:s3:::bucket"), "ARN", "arn:aws:ecs"),
        ((*SERVICE, "web", "70000:80"), "70000", ""),
        ((*SERVICE, "web", "0:80"), "0", ""),
        ((*SERVICE, "web", "8080:80:90"), "`8080:80:90`", "LOCAL:TARGET"),
        ((*SERVICE, "web", "8080:"), "`8080:`", "LOCAL:TARGET"),
        ((*SERVICE, "web", "8080:80", "8080:81"), "8080", "its own"),
        ((*SERVICE, "web", "8080:80", "--target-port", "80"), "twice", ""),
        ((*SERVICE, "web", "8080:80", "8081:81", "--name", "one"), "`one`", ""),
        ((*SERVICE, "web", "--local-port", "70000"), "70000", ""),
        ((*SERVICE, "web", "--local-port", "-1"), "-1", ""),
        ((*SERVICE, "web", "--local-port", "x"), "`x`", ""),
        ((*SERVICE, "web", "--target-port", "a b"), "`a b`", ""),
        ((*SERVICE, "web", "--name", "agent"), "`agent`", "another name"),
        ((*SERVICE, "web", "--name", "no spaces"), "`no spaces`", "1 to 63"),
        ((*SERVICE, "web", "--address", "999.1.1.1"), "`999.1.1.1`", "0.0.0.0"),
        ((*SERVICE, "web", "--region", "moon"), "`moon`", "us-east-1"),
        ((*SERVICE, "web", "--wait=soon"), "`soon`", "--wait=30"),
        ((*SERVICE, "web", "--wait=-1"), "`-1`", "--wait=30"),
        ((*SERVICE, "web", "--foreground", "-o", "json"), "--foreground", "-o"),
        (("port-forward", "start", "task", "xyz"), "`xyz`", "8"),
        (("port-forward", "start", "task", "0123abc"), "`0123abc`", "8"),
        (("port-forward", "start", "cluster", "x"), "`cluster`", ""),
        (("port-forward", "start", "task", "dev", "--tag", "x"), "`x` is no tag", "--tag Environment=dev"),
        (("port-forward", "start", "task", "a/b", "--tag", "x=y"), "`a/b`", "the cluster alone"),
        (("port-forward", "start", "task", "dev/0123abcd", "--all"), "`--strict` is about tags", "--tag"),
        (("port-forward", "start", "service", "web", "--tag", "x=y"), "`--tag`", ""),
        ((*SERVICE, "web", "--probe", "udp"), "`udp` is no probe", "http:/path"),
        ((*SERVICE, "web", "--retry", "often"), "`often`", "attempts"),
        ((*SERVICE, "web", "--retry", "factor=0.5"), "factor: expected", "schema"),
        ((*SERVICE, "web", "--hold", "seconds=9999"), "seconds: expected", "schema"),
        ((*SERVICE, "web", "--probe", "http:/a b"), "path: expected", "schema"),
        ((*SERVICE, "web", "--notify", "http:// x"), "webhook: expected", "schema"),
        ((*SERVICE, "web", "--hold", "minutes=1"), "`minutes=1`", "seconds, connections"),
        ((*SERVICE, "web", "--notify", "mail"), "`mail`", "`desktop`"),
        ((*SERVICE, "web", "--notify", "ftp://x"), "`ftp://x`", "URL"),
        (("port-forward", "run", "--watch", "-o", "json"), "`--watch`", "`-o`"),
        (("port-forward", "run", "--wait=soon"), "`soon`", "--wait=30"),
        (("port-forward", "run", "file.yaml"), "file.yaml", ""),
        (("port-forward", "export", "--force"), "`--force`", "-o FILE"),
        (("port-forward", "stop"), "no forward", "--all"),
        (("port-forward", "stop", "a", "--all"), "--all", ""),
        (("port-forward", "logs"), "missing argument", ""),
        (("port-forward", "list", "-o", "xml"), "`xml`", ""),
    ],
)
def test_what_cannot_be_meant_is_a_usage_error_before_any_file_exists(fails, kecs, arguments, says, hint):
    fails(2, *arguments, says=says, hint=hint)
    assert list(kecs.home.path.iterdir()) == []


NEEDS_AN_INSTANCE = [
    ("status",),
    ("stop",),
    ("destroy", "--yes"),
    ("ps",),
    ("logs", "web"),
    ("logs", "--daemon", "agent"),
    ("explain", "service", "web"),
    ("explain", "forward", "a"),
    ("env",),
    ("secrets", "set", "a", "b"),
    ("secrets", "list"),
    ("secrets", "rm", "a"),
    (*SERVICE, "web"),
    ("port-forward", "list"),
    ("port-forward", "list", "--watch"),
    ("port-forward", "down"),
    ("port-forward", "export"),
    ("port-forward", "stop", "--all"),
    ("port-forward", "stop", "--names"),
    ("port-forward", "logs", "a"),
    ("port-forward", "agent", "status"),
    ("port-forward", "agent", "stop"),
    ("port-forward", "agent", "restart"),
    ("port-forward", "agent", "logs"),
]


@pytest.mark.parametrize("arguments", NEEDS_AN_INSTANCE)
def test_without_an_instance_nothing_is_found_and_nothing_made(fails, kecs, arguments):
    fails(3, *arguments, says="`default`", hint="kecs start")
    assert list(kecs.home.path.iterdir()) == []


def test_the_names_of_other_instances_help(fails, home):
    home.instance("mine")
    fails(3, "status", says="`default`", hint="`mine`")


@pytest.mark.parametrize("arguments", NEEDS_AN_INSTANCE)
@pytest.mark.parametrize(
    ("content", "code", "says"),
    [
        ("{broken", 1, "instance.yaml"),
        ("version: 99\n", 4, "newer"),
        ("version: 1\nname: 7\n", 1, "instance.yaml"),
    ],
)
def test_a_broken_or_newer_instance_file_is_named_and_left_alone(fails, home, arguments, content, code, says):
    home.instance()
    home.paths.instance_file.write_text(content)
    fails(code, *arguments, says=says)
    assert home.paths.instance_file.read_text() == content
    assert home.alive() == []


@pytest.mark.parametrize(
    "arguments",
    [
        ("ps",),
        ("logs", "web"),
        ("explain", "task", "0123abcd"),
        ("explain", "forward", "a"),
        ("env",),
        (*SERVICE, "web"),
        ("port-forward", "stop", "--all"),
        ("port-forward", "stop", "x"),
        ("port-forward", "stop", "--names"),
        ("port-forward", "agent", "status"),
        ("port-forward", "agent", "restart"),
    ],
)
def test_a_stopped_instance_is_unreachable_and_stays_stopped(fails, home, arguments):
    home.instance(desired="stopped")
    fails(5, *arguments, hint="kecs start")
    assert home.alive() == []


def test_hints_name_the_instance_that_was_meant(fails, home):
    home.instance("two", desired="stopped")
    fails(5, "ps", "-i", "two", says="`two`", hint="`kecs start --instance two`")


def test_the_innermost_instance_counts(kecs, home):
    home.instance("two", desired="stopped")
    assert "`two`" in kecs("-i", "one", "port-forward", "-i", "three", "list", "-i", "two").err


def test_the_instance_of_the_environment_is_the_default(fails, home, monkeypatch):
    monkeypatch.setenv("KECS_INSTANCE", "two")
    fails(3, "status", says="`two`")


def test_a_home_that_is_a_file(fails, home, monkeypatch):
    (home.path / "file").write_text("x")
    monkeypatch.setenv("KECS_HOME", str(home.path / "file"))
    fails(1, "start", says="file", hint="KECS_HOME")


def test_too_long_a_home(fails, home, monkeypatch):
    monkeypatch.setenv("KECS_HOME", str(home.path / ("d" * 100)))
    fails(2, "start", says="103", hint="KECS_HOME")
    assert list(home.path.iterdir()) == []


@pytest.mark.parametrize(
    ("content", "code", "says"),
    [
        ("version: 1\ncolour: red\n", 2, "`colour`"),
        ("{", 1, "settings.yaml"),
        ("version: 1\ndrain: x\n", 2, "`x`"),
    ],
)
def test_settings_that_cannot_be(fails, home, content, code, says):
    (home.path / "settings.yaml").write_text(content)
    fails(code, "start", says=says)
    assert not home.paths.root.exists()


def test_a_refusal_of_a_daemon_is_shown_as_its_own(fails, home):
    home.instance()
    home.daemons_do(
        controlplane={"refuses": {"message": "there is no service `x`", "hint": "see ps", "exitCode": 3}}
    )
    fails(3, "explain", "service", "x", says="there is no service `x`", hint="see ps")


def test_an_error_of_the_agent_is_shown_as_its_own(fails, home):
    home.instance()
    failure = {"code": -32000, "message": "port 80 is taken", "data": {"hint": "another", "exitCode": 4}}
    home.daemons_do(agent={"refuses": failure})
    home.forwards({"name": "x"})
    fails(4, "port-forward", "list", says="port 80 is taken", hint="another")


def test_destroy_without_a_terminal_and_without_yes(fails, home):
    home.instance(desired="stopped", ended=True)
    fails(2, "destroy", hint="--yes")
    assert instances.require(home.paths).name == "default"
