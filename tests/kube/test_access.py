"""Every kind of credentials reaches the server, is renewed before or when it ends, and is shown to nobody."""

from __future__ import annotations

import asyncio
import base64
import json
import stat
import subprocess
import sys
import threading
import time

import pytest
import yaml
from tests.cluster.harness.certificates import Authority, of_client
from tests.kube.objects import status
from tests.kube.scripted import Answer
from tests.kube.scripted_proxy import ScriptedProxy
from tests.kube.shapes import pod

from kecs import aio
from kecs.errors import ExitCode, KecsError
from kecs.kube import access as access_module
from kecs.kube.access import Access
from kecs.kube.advice import advice
from kecs.kube.client import KubeClient
from kecs.kube.errors import ApiError, NoCredentials, Unreachable
from kecs.kube.proxy import choose
from kecs.kube.upgrade import open_portforward

V1 = "client.authentication.k8s.io/v1"


def load(folder, user=None, server="https://127.0.0.1:1", **cluster):
    return Access.load(write(folder, user, server, **cluster))


def write(folder, user=None, server="https://127.0.0.1:1", **cluster):
    """Write a kubeconfig, as a login does; its path."""
    path = folder / "kubeconfig"
    path.write_text(
        yaml.safe_dump(
            {
                "current-context": "x",
                "clusters": [{"name": "c", "cluster": {"server": server, **cluster}}],
                "users": [{"name": "u", "user": user or {}}],
                "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
            }
        )
    )
    return path


def refused(folder, *arguments, **options):
    with pytest.raises(KecsError) as raised:
        load(folder, *arguments, **options)
    assert raised.value.exit_code is ExitCode.UNREACHABLE
    return raised.value


def version(access):
    """What the server says when asked with this access; in the end, an error as a person sees it."""

    async def ask():
        client = KubeClient(access)
        try:
            return await client.version()
        finally:
            await client.close()

    return asyncio.run(ask())


def shown(access):
    """The error that a person is shown."""
    with pytest.raises((ApiError, Unreachable)) as raised:
        version(access)
    return advice(raised.value, access)


# The server


@pytest.mark.parametrize(
    ("server", "host", "port", "path"),
    [
        ("https://api.test:6443", "api.test", 6443, ""),
        ("https://api.test/", "api.test", 443, ""),
        ("http://127.0.0.1:8001", "127.0.0.1", 8001, ""),
        ("https://[::1]:6443", "::1", 6443, ""),
        ("https://rancher.test/k8s/clusters/c-1", "rancher.test", 443, "/k8s/clusters/c-1"),
        ("api.test:6443", "api.test", 6443, ""),
    ],
)
def test_a_server_is_host_port_and_path(tmp_path, server, host, port, path):
    access = load(tmp_path, server=server)
    assert (access.host, access.port, access.path) == (host, port, path)


@pytest.mark.parametrize("server", ["ftp://api.test", "https://", "https://api.test:port", "https://[::1"])
def test_a_server_that_is_no_url_is_refused(tmp_path, server):
    assert server in refused(tmp_path, server=server).message


def test_a_plain_server_has_no_tls(tmp_path):
    assert load(tmp_path, server="http://127.0.0.1:8001").ssl_context() is None


def test_the_context_and_the_file_are_known(tmp_path):
    access = load(tmp_path)
    assert (access.context, access.kubeconfig) == ("x", tmp_path / "kubeconfig")


# TLS


def test_the_kubeconfigs_authority_vouches_for_the_server(tls_api, authority, tmp_path):
    by_data = Access.load(tls_api.kubeconfig(tmp_path, authority=authority.pair.certificate))
    assert version(by_data) == (1, 35)
    (tmp_path / "ca.crt").write_bytes(authority.pair.certificate.read_bytes())
    by_relative_file = load(tmp_path, server=tls_api.url, **{"certificate-authority": "ca.crt"})
    assert version(by_relative_file) == (1, 35)


def test_another_authority_is_refused_with_a_hint(tls_api, tmp_path):
    other = Authority(tmp_path / "other")
    access = Access.load(tls_api.kubeconfig(tmp_path, authority=other.pair.certificate))
    error = shown(access)
    assert "not signed by the kubeconfig's authority" in error.message
    assert "kubeconfig again" in error.hint


def test_no_authority_means_the_systems(tls_api, tmp_path):
    assert "not signed" in shown(load(tmp_path, server=tls_api.url)).message


def test_verification_can_be_switched_off(tls_api, tmp_path):
    access = load(tmp_path, server=tls_api.url, **{"insecure-skip-tls-verify": True})
    assert version(access) == (1, 35)


def test_the_server_must_have_the_name_that_is_asked_for(tls_api, authority, tmp_path):
    trust = {"certificate-authority": str(authority.pair.certificate)}
    named = load(tmp_path, server=tls_api.url, **trust, **{"tls-server-name": "kube.test"})
    assert version(named) == (1, 35)
    other = load(tmp_path, server=tls_api.url, **trust, **{"tls-server-name": "other.test"})
    error = shown(other)
    assert "for another name" in error.message
    assert "tls-server-name" in error.hint


def test_a_server_without_tls_where_it_is_expected_is_named(api, tmp_path):
    assert "does not speak TLS" in shown(load(tmp_path, server=f"https://127.0.0.1:{api.port}")).message


def test_nobody_listening_is_told_with_a_hint(api, tmp_path):
    access = Access.load(api.kubeconfig(tmp_path))
    api.stop()
    error = shown(access)
    assert (error.exit_code, "start the cluster" in error.hint) == (ExitCode.UNREACHABLE, True)
    api.start()


def test_a_name_that_does_not_resolve_is_told(tmp_path):
    assert "cannot be resolved" in shown(load(tmp_path, server="https://nowhere.invalid")).message


def test_a_certificate_that_is_no_certificate_is_refused(tmp_path):
    (tmp_path / "ca").write_text("nonsense")
    assert "certificate authority" in refused(tmp_path, **{"certificate-authority": "ca"}).message
    assert "certificate-authority" in refused(tmp_path, **{"certificate-authority-data": "!"}).message
    assert "is empty" in refused(tmp_path, **{"certificate-authority-data": " "}).message
    assert "cannot be read" in refused(tmp_path, **{"certificate-authority": "missing"}).message


# Client certificates


def test_a_client_certificate_by_data_and_by_file_is_presented(authority, tmp_path):
    pair = authority.client("alice")
    for user in (
        of_client(pair),
        {"client-certificate": str(pair.certificate), "client-key": str(pair.key)},
    ):
        assert load(tmp_path, user).ssl_context() is not None


def test_data_wins_over_a_file(authority, tmp_path):
    user = {**of_client(authority.client("alice")), "client-certificate": "missing", "client-key": "missing"}
    load(tmp_path, user).ssl_context()


def test_a_certificate_without_its_key_is_refused(authority, tmp_path):
    pair = authority.client("alice")
    assert "without its key" in refused(tmp_path, {"client-certificate": str(pair.certificate)}).message


def test_a_key_of_another_certificate_is_refused(authority, tmp_path):
    one, other = authority.client("alice"), authority.client("bob")
    user = {"client-certificate": str(one.certificate), "client-key": str(other.key)}
    assert "do not go together" in refused(tmp_path, user).message


def test_an_encrypted_key_asks_nobody(authority, tmp_path):
    pair = authority.client("alice")
    locked = tmp_path / "locked.key"
    subprocess.run(
        ["openssl", "ec", "-in", pair.key, "-aes256", "-passout", "pass:x", "-out", locked],
        check=True,
        capture_output=True,
    )
    user = {"client-certificate": str(pair.certificate), "client-key": str(locked)}
    assert "damaged" in refused(tmp_path, user).message


def test_an_expired_client_certificate_is_the_reason_for_a_401(tls_api, authority, tmp_path):
    user = of_client(authority.expired("alice"))
    path = tls_api.kubeconfig(tmp_path, user, authority.pair.certificate)
    tls_api.answer_next(Answer(401, status(401, "Unauthorized", "Unauthorized")))
    error = shown(Access.load(path))
    assert "expired on 2020-01-02" in error.message


def test_a_client_certificate_that_was_renewed_in_its_file_is_used_after_a_401(api, authority, tmp_path):
    old, new = authority.client("alice"), authority.client("alice-again")
    cert, key = tmp_path / "tls.crt", tmp_path / "tls.key"
    cert.write_bytes(old.certificate.read_bytes())
    key.write_bytes(old.key.read_bytes())
    access = load(
        tmp_path,
        {"client-certificate": "tls.crt", "client-key": "tls.key"},
        **{"insecure-skip-tls-verify": True},
    )
    first = access.ssl_context()
    assert access.renew() is False
    assert access.ssl_context() is first
    cert.write_bytes(new.certificate.read_bytes())
    key.write_bytes(new.key.read_bytes())
    assert access.renew() is True
    assert access.ssl_context() is not first
    assert access.generation == 1


class Files:
    """A client certificate and its key in files, which are replaced one after the other."""

    def __init__(self, folder, pair):
        self.certificate, self.key = folder / "tls.crt", folder / "tls.key"
        self.take(pair)

    def take(self, pair):
        self.certificate.write_bytes(pair.certificate.read_bytes())
        self.key.write_bytes(pair.key.read_bytes())

    def user(self):
        return {"client-certificate": str(self.certificate), "client-key": str(self.key)}


@pytest.mark.parametrize(
    "half",
    [
        lambda files, new: files.certificate.write_bytes(new.certificate.read_bytes()),
        lambda files, new: files.certificate.write_text("-----BEGIN CERTIFICATE-----\nMII"),
        lambda files, new: files.certificate.write_bytes(b""),
        lambda files, new: files.key.unlink(),
    ],
    ids=["another's key", "damaged", "empty", "missing"],
)
def test_a_401_between_two_writes_of_a_pair_leaves_the_old_one_and_the_next_401_looks_again(
    authority, tmp_path, half
):
    old, new = authority.client("alice"), authority.client("alice-again")
    files = Files(tmp_path, old)
    access = load(tmp_path, files.user())
    first = access.ssl_context()
    half(files, new)
    assert access.renew() is False
    assert (access.ssl_context() is first, access.generation) == (True, 0)
    files.take(new)
    assert access.renew() is True
    assert (access.ssl_context() is first, access.generation) == (False, 1)


def test_two_401s_of_one_certificate_both_lead_to_the_new_one(authority, tmp_path):
    files = Files(tmp_path, authority.client("alice"))
    access = load(tmp_path, files.user())
    refused_headers, generation = access.headers(), access.generation
    files.take(authority.client("alice-again"))
    assert access.renew(refused_headers, generation) is True
    assert access.renew(refused_headers, generation) is True, "the first one has renewed for both"
    assert access.generation == 1


def test_a_request_between_two_writes_of_a_pair_is_refused_and_the_next_one_is_not(
    tls_api, authority, tmp_path
):
    old, new = authority.client("alice"), authority.client("alice-again")
    files = Files(tmp_path, old)
    access = Access.load(tls_api.kubeconfig(tmp_path, files.user(), authority.pair.certificate))

    async def scene():
        client = await KubeClient.open(access)
        try:
            files.certificate.write_bytes(new.certificate.read_bytes())
            tls_api.answer_next(Answer(401), times=2)
            with pytest.raises(ApiError) as raised:
                await client.version()
            assert raised.value.status == 401
            files.key.write_bytes(new.key.read_bytes())
            assert await client.version() == (1, 35)
        finally:
            await client.close()

    asyncio.run(scene())
    assert access.generation == 1


# Tokens and passwords


def test_a_token_and_a_password_are_headers(tmp_path):
    assert load(tmp_path, {"token": "t1"}).headers() == {"Authorization": "Bearer t1"}
    basic = load(tmp_path, {"username": "alice", "password": "p:w"}).headers()["Authorization"]
    assert base64.b64decode(basic.removeprefix("Basic ")) == b"alice:p:w"
    assert load(tmp_path).headers() == {}


def test_a_token_file_is_read_again_after_a_minute_and_after_a_401(tmp_path, monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(access_module.time, "monotonic", lambda: now[0])
    file = tmp_path / "token"
    file.write_text("one\n")
    access = load(tmp_path, {"tokenFile": "token", "token": "of the kubeconfig"})
    assert access.headers() == {"Authorization": "Bearer one"}
    file.write_text("two")
    assert access.headers() == {"Authorization": "Bearer one"}
    now[0] += 60
    assert access.headers() == {"Authorization": "Bearer two"}
    file.write_text("three")
    assert access.renew(access.headers()) is True
    assert access.headers() == {"Authorization": "Bearer three"}
    assert access.renew(access.headers()) is False


def test_a_token_file_that_is_just_being_replaced_does_no_harm(tmp_path, monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(access_module.time, "monotonic", lambda: now[0])
    file = tmp_path / "token"
    file.write_text("one")
    access = load(tmp_path, {"tokenFile": "token"})
    access.headers()
    file.unlink()
    now[0] += 61
    assert access.headers() == {"Authorization": "Bearer one"}


def test_a_token_file_that_never_was_there_is_named(tmp_path):
    with pytest.raises(NoCredentials, match=str(tmp_path / "token")):
        load(tmp_path, {"tokenFile": "token"}).headers()


def test_impersonation_is_passed_on(tmp_path):
    user = {"token": "t", "as": "bob", "as-uid": "7", "as-groups": ["dev"], "as-user-extra": {"a/b": ["c"]}}
    assert load(tmp_path, user).headers() == {
        "Authorization": "Bearer t",
        "Impersonate-User": "bob",
        "Impersonate-Uid": "7",
        "Impersonate-Group": "dev",
        "Impersonate-Extra-a%2Fb": "c",
    }
    assert "several groups" in refused(tmp_path, {"as": "bob", "as-groups": ["a", "b"]}).message


def test_a_removed_auth_provider_is_named(tmp_path):
    error = refused(tmp_path, {"auth-provider": {"name": "gcp"}})
    assert "'gcp'" in error.message
    assert "exec" in error.hint


def test_a_refused_token_is_not_shown(api, tmp_path):
    api.tokens = {"right"}
    error = shown(Access.load(api.kubeconfig(tmp_path, {"token": "s3cr3t"})))
    assert "the token in the kubeconfig" in error.message
    assert "s3cr3t" not in error.message + error.hint


def test_a_server_that_takes_us_for_nobody_did_not_accept_the_credentials(api, tmp_path):
    access = Access.load(api.kubeconfig(tmp_path, {"username": "alice", "password": "s3cr3t"}))
    message = 'namespaces is forbidden: User "system:anonymous" cannot list resource "namespaces"'
    api.answer_next(Answer(403, status(403, "Forbidden", message)))
    error = shown(access)
    assert "does not accept user name and password" in error.message


def test_a_missing_right_names_what_to_ask_for(api, tmp_path):
    access = Access.load(api.kubeconfig(tmp_path))
    right = 'cannot list resource "pods" in API group "apps" in the namespace "dev"'
    message = f'pods is forbidden: User "alice" {right}'
    api.answer_next(Answer(403, status(403, "Forbidden", message)))
    error = shown(access)
    assert error.exit_code is ExitCode.UNREACHABLE
    assert "`list` on `pods.apps` in namespace dev" in error.hint


# Plugins


class Plugin:
    """A credential plugin that says what it is told to, and notes how it was called."""

    def __init__(self, folder):
        self.path = folder / "plugin"
        self.script = folder / "say.json"
        self.calls = folder / "calls"
        self.takes = 0
        """Seconds for a run, from the next word on."""
        self.path.write_text(
            f"#!{sys.executable} -IS\n"
            "import json, os, sys\n"
            "call = {'args': sys.argv[1:], 'env': dict(os.environ), 'stdin': sys.stdin.read()}\n"
            f"open({str(self.calls)!r}, 'a').write(json.dumps(call) + chr(10))\n"
            f"say = json.load(open({str(self.script)!r}))\n"
            "import time; time.sleep(say['takes'])\n"
            "sys.stderr.write(say['err']); sys.stdout.write(say['out']); sys.exit(say['code'])\n"
        )
        self.path.chmod(self.path.stat().st_mode | stat.S_IXUSR)

    def say(self, out="", err="", code=0):
        say = {"out": out, "err": err, "code": code, "takes": self.takes}
        self.script.write_text(json.dumps(say))

    def give(self, api_version=V1, **status):
        self.say(json.dumps({"kind": "ExecCredential", "apiVersion": api_version, "status": status}))

    def called(self):
        return (
            [json.loads(line) for line in self.calls.read_text().splitlines()] if self.calls.exists() else []
        )

    def user(self, **more):
        return {"exec": {"apiVersion": V1, "command": str(self.path), "interactiveMode": "Never", **more}}


@pytest.fixture
def plugin(tmp_path):
    return Plugin(tmp_path)


def stamp(seconds):
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + seconds))


@pytest.mark.parametrize("api_version", [V1, "client.authentication.k8s.io/v1beta1"])
def test_a_plugins_token_is_used_and_the_plugin_asked_once(plugin, tmp_path, api_version):
    plugin.give(api_version, token="t1")
    access = load(tmp_path, plugin.user(apiVersion=api_version))
    assert access.headers_at_once() is None
    for _ in range(3):
        assert access.headers() == {"Authorization": "Bearer t1"}
        assert access.headers_at_once() == {"Authorization": "Bearer t1"}
    assert len(plugin.called()) == 1


def test_a_plugin_is_called_as_kubectl_calls_it(plugin, tmp_path):
    plugin.give(token="t1")
    user = plugin.user(args=["--region", "eu"], env=[{"name": "PROFILE", "value": "dev"}])
    load(tmp_path, user).headers()
    [call] = plugin.called()
    info = json.loads(call["env"]["KUBERNETES_EXEC_INFO"])
    assert (call["args"], call["env"]["PROFILE"], call["stdin"]) == (["--region", "eu"], "dev", "")
    assert info == {"kind": "ExecCredential", "apiVersion": V1, "spec": {"interactive": False}}


def test_a_plugin_that_wants_to_know_the_cluster_is_told(plugin, authority, tmp_path):
    plugin.give(token="t1")
    extension = {"name": "client.authentication.k8s.io/exec", "extension": {"audience": "a"}}
    cluster = {"certificate-authority": str(authority.pair.certificate), "extensions": [extension]}
    load(tmp_path, plugin.user(provideClusterInfo=True), server="https://c.test", **cluster).headers()
    told = json.loads(plugin.called()[0]["env"]["KUBERNETES_EXEC_INFO"])["spec"]["cluster"]
    assert (told["server"], told["config"]) == ("https://c.test", {"audience": "a"})
    pem = base64.b64decode(told["certificate-authority-data"])
    assert pem == authority.pair.certificate.read_bytes()


def test_a_command_with_a_slash_is_relative_to_the_kubeconfig(plugin, tmp_path, monkeypatch):
    plugin.give(token="t1")
    monkeypatch.chdir("/")
    assert load(tmp_path, plugin.user(command="./plugin")).headers() == {"Authorization": "Bearer t1"}


def test_a_plugin_is_asked_again_before_its_token_expires(plugin, tmp_path):
    plugin.give(token="t1", expirationTimestamp=stamp(20 * 60))
    access = load(tmp_path, plugin.user())
    access.headers()
    assert access.headers_at_once() is not None
    plugin.give(token="t2", expirationTimestamp=stamp(3600))
    access._issued_until = time.time()  # twenty minutes less thirty seconds later
    assert access.headers_at_once() is None
    assert access.headers() == {"Authorization": "Bearer t2"}


def test_new_credentials_are_wanted_half_a_minute_before_the_end(plugin, tmp_path):
    plugin.give(token="t1", expirationTimestamp=stamp(600))
    access = load(tmp_path, plugin.user())
    access.headers()
    assert 565 < access._issued_until - time.time() <= 570


def test_a_401_asks_the_plugin_again_but_many_of_them_only_once(plugin, tmp_path):
    plugin.give(token="t1")
    access = load(tmp_path, plugin.user())
    refused_headers = access.headers()
    plugin.give(token="t2")
    threads = [threading.Thread(target=access.renew, args=(refused_headers,)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert access.headers() == {"Authorization": "Bearer t2"}
    assert len(plugin.called()) == 2


async def asked_while_it_runs(client, plugin, count):
    """Requests, all but the first of which come while the plugin is running."""
    before = len(plugin.called())
    asked = [aio.create_task(client.version(), name="ask")]
    while len(plugin.called()) == before:
        await asyncio.sleep(0.01)
    return asked + [aio.create_task(client.version(), name="ask") for _ in range(count - 1)]


@pytest.mark.parametrize("again", [False, True], ids=["at first", "after a 401"])
def test_a_plugin_that_takes_its_time_does_not_hold_up_the_loop(plugin, api, tmp_path, again):
    plugin.give(token="t1")
    api.tokens = {"t1"}
    access = Access.load(api.kubeconfig(tmp_path, plugin.user()))

    async def scene():
        client = KubeClient(access)
        try:
            if again:
                await client.version()
                api.tokens = {"t2"}
            plugin.takes = 1
            plugin.give(token="t2" if again else "t1")
            asked = await asked_while_it_runs(client, plugin, 2)
            longest, before = 0.0, time.monotonic()
            while not all(each.done() for each in asked):
                await asyncio.sleep(0.01)
                longest, before = max(longest, time.monotonic() - before), time.monotonic()
            assert [await each for each in asked] == [(1, 35)] * 2
        finally:
            await client.close()
        return longest

    assert asyncio.run(scene()) < 0.5, "the loop got on all the time"
    assert len(plugin.called()) == 1 + again


def test_those_who_wait_for_a_plugin_leave_the_threads_of_others_alone(plugin, api, tmp_path):
    plugin.takes = 1
    plugin.give(token="t1")
    access = Access.load(api.kubeconfig(tmp_path, plugin.user()))

    async def scene():
        client = KubeClient(access)
        try:
            asked = await asked_while_it_runs(client, plugin, 40)
            await asyncio.sleep(0.05)
            began = time.monotonic()
            await asyncio.to_thread(lambda: None)
            waited = time.monotonic() - began
            await asyncio.gather(*asked)
        finally:
            await client.close()
        return waited

    assert asyncio.run(scene()) < 0.5
    assert len(plugin.called()) == 1


def test_a_plugins_certificate_is_presented_and_replaced(plugin, authority, tmp_path):
    def issue(name):
        pair = authority.client(name)
        plugin.give(
            clientCertificateData=pair.certificate.read_text(), clientKeyData=pair.key.read_text()
        )  # fmt: skip

    issue("alice")
    access = load(tmp_path, plugin.user())
    first = access.ssl_context()
    assert access.headers() == {}
    issue("bob")
    assert access.renew() is True
    assert access.ssl_context() is not first


def test_a_plugins_certificate_that_is_of_no_use_leaves_the_one_before(plugin, authority, tmp_path):
    pair = authority.client("alice")
    plugin.give(clientCertificateData=pair.certificate.read_text(), clientKeyData=pair.key.read_text())
    access = load(tmp_path, plugin.user())
    first = access.ssl_context()
    plugin.give(clientCertificateData="no PEM", clientKeyData=pair.key.read_text())
    with pytest.raises(NoCredentials, match="damaged"):
        access.renew()
    plugin.give(clientCertificateData=pair.certificate.read_text(), clientKeyData=pair.key.read_text())
    assert access.ssl_context() is first


def test_a_client_goes_on_with_new_connections_when_the_certificate_changes(
    plugin, tls_api, authority, tmp_path
):
    pairs = [authority.client("alice"), authority.client("bob")]
    plugin.give(
        clientCertificateData=pairs[0].certificate.read_text(), clientKeyData=pairs[0].key.read_text()
    )
    trust = {"certificate-authority": str(authority.pair.certificate)}
    access = load(tmp_path, plugin.user(), server=tls_api.url, **trust)

    async def scene():
        client = await KubeClient.open(access)
        try:
            plugin.give(
                clientCertificateData=pairs[1].certificate.read_text(), clientKeyData=pairs[1].key.read_text()
            )
            tls_api.answer_next(Answer(401, status(401, "Unauthorized", "Unauthorized")))
            assert await client.version() == (1, 35)
            assert access.generation == 2
        finally:
            await client.close()

    asyncio.run(scene())


@pytest.mark.parametrize(
    ("saying", "words"),
    [
        ({"code": 3, "err": "first\nlogin has expired\n"}, "exit code 3: login has expired"),
        ({"out": "no json"}, "not an ExecCredential"),
        ({"out": '{"kind": "ExecCredential", "apiVersion": "other"}'}, "does not print an ExecCredential of"),
        ({"out": f'{{"kind": "ExecCredential", "apiVersion": "{V1}"}}'}, "neither a token nor"),
        (
            {
                "out": f'{{"kind": "ExecCredential", "apiVersion": "{V1}",'
                ' "status": {"token": "s3cr3t", "clientKeyData": "k"}}'
            },
            "without its key",
        ),
        (
            {
                "out": f'{{"kind": "ExecCredential", "apiVersion": "{V1}",'
                ' "status": {"clientCertificateData": "no PEM", "clientKeyData": "s3cr3t"}}'
            },
            "damaged",
        ),
    ],
)
def test_a_plugin_that_is_of_no_use_says_why(plugin, tmp_path, saying, words):
    plugin.say(**saying)
    with pytest.raises(NoCredentials) as raised:
        load(tmp_path, plugin.user()).headers()
    assert words in raised.value.message
    assert "s3cr3t" not in raised.value.message


def test_a_plugin_that_is_not_installed_gives_its_own_hint(tmp_path):
    user = {"exec": {"apiVersion": V1, "command": "no-such-plugin", "installHint": "brew install it"}}
    with pytest.raises(NoCredentials) as raised:
        load(tmp_path, user).headers()
    assert "no-such-plugin" in raised.value.message
    assert raised.value.hint == "brew install it"


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"interactiveMode": "Always"}, "terminal"),
        ({"apiVersion": "client.authentication.k8s.io/v1alpha1"}, "v1alpha1"),
    ],
)
def test_a_plugin_that_cannot_work_here_is_refused_at_once(plugin, tmp_path, more, words):
    assert words in refused(tmp_path, plugin.user(**more)).message
    assert plugin.called() == []


# Proxies


@pytest.fixture
def proxy(nothing_left):
    with ScriptedProxy() as server:
        yield server


@pytest.mark.parametrize("login", ["", "alice:s3cr3t@"])
def test_a_proxy_is_asked_to_connect_for_calls_and_for_tunnels(tls_api, authority, proxy, tmp_path, login):
    tls_api.put(pod())
    trust = {"certificate-authority": str(authority.pair.certificate)}
    url = f"http://{login}127.0.0.1:{proxy.port}"
    access = load(tmp_path, server=tls_api.url, **trust, **{"proxy-url": url})
    assert version(access) == (1, 35)
    open_portforward(access, "default", "web", timeout=5).sock.close()
    assert proxy.targets == [f"127.0.0.1:{tls_api.port}"] * 2
    assert proxy.logins == ([base64.b64encode(b"alice:s3cr3t").decode()] * 2 if login else [])


def test_a_proxy_that_refuses_is_named(tls_api, proxy, tmp_path):
    proxy.refuses = True
    access = load(tmp_path, server=tls_api.url, **{"proxy-url": f"http://127.0.0.1:{proxy.port}"})
    with pytest.raises(Unreachable, match="it answered 403") as raised:
        open_portforward(access, "default", "web", timeout=5)
    assert "proxy-url" in raised.value.hint
    with pytest.raises(Unreachable):
        version(access)


def test_a_proxy_that_is_away_is_named(tls_api, proxy, tmp_path):
    access = load(tmp_path, server=tls_api.url, **{"proxy-url": f"http://127.0.0.1:{proxy.port}"})
    proxy.close()
    with pytest.raises(Unreachable, match="the proxy 127"):
        open_portforward(access, "default", "web", timeout=5)


@pytest.mark.parametrize(
    ("environ", "host", "expected"),
    [
        ({}, "api.test", None),
        ({"HTTPS_PROXY": "http://p.test:3128"}, "api.test", "p.test:3128"),
        ({"https_proxy": "p.test:3128"}, "api.test", "p.test:3128"),
        ({"HTTP_PROXY": "http://p.test"}, "api.test", None),
        ({"HTTPS_PROXY": "http://p.test"}, "127.0.0.1", None),
        ({"HTTPS_PROXY": "http://p.test"}, "localhost", None),
        ({"HTTPS_PROXY": "http://p.test"}, "::1", None),
        ({"HTTPS_PROXY": "http://p.test", "NO_PROXY": "*"}, "api.test", None),
        ({"HTTPS_PROXY": "http://p.test", "NO_PROXY": "a.test, api.test"}, "api.test", None),
        ({"HTTPS_PROXY": "http://p.test", "NO_PROXY": "api.test"}, "deep.api.test", None),
        ({"HTTPS_PROXY": "http://p.test", "NO_PROXY": ".api.test"}, "deep.api.test", None),
        ({"HTTPS_PROXY": "http://p.test", "NO_PROXY": ".api.test"}, "api.test", "p.test:80"),
        ({"HTTPS_PROXY": "http://p.test", "NO_PROXY": "pi.test"}, "api.test", "p.test:80"),
        ({"HTTPS_PROXY": "http://p.test", "NO_PROXY": "api.test:6443"}, "api.test", None),
        ({"HTTPS_PROXY": "http://p.test", "NO_PROXY": "api.test:1"}, "api.test", "p.test:80"),
        ({"HTTPS_PROXY": "http://p.test", "no_proxy": "10.0.0.0/8"}, "10.1.2.3", None),
        ({"HTTPS_PROXY": "http://p.test", "no_proxy": "10.0.0.0/8"}, "11.1.2.3", "p.test:80"),
        ({"HTTPS_PROXY": "http://p.test", "no_proxy": "10.1.2.3"}, "10.1.2.3", None),
        ({"HTTPS_PROXY": "http://p.test", "no_proxy": "[fd00::1]:6443"}, "fd00::1", None),
        ({"HTTPS_PROXY": "http://p.test", "no_proxy": "nonsense/99,,:,"}, "10.1.2.3", "p.test:80"),
    ],
)
def test_the_environments_proxy_counts_as_it_does_for_kubectl(environ, host, expected):
    chosen = choose("", "https", host, 6443, environ)
    assert (f"{chosen.host}:{chosen.port}" if chosen else None) == expected


def test_a_proxy_of_another_kind_is_refused_with_a_hint(tmp_path):
    error = refused(tmp_path, **{"proxy-url": "socks5://user:s3cr3t@127.0.0.1:1080"})
    assert "`proxy-url` in the kubeconfig is not the http:// URL" in error.message
    assert "s3cr3t" not in error.message + error.hint


def test_an_access_shows_no_credentials(tmp_path):
    access = load(tmp_path, {"token": "s3cr3t"})
    assert "s3cr3t" not in repr(access) + repr(vars(access))


# New logins


def test_a_new_token_in_the_kubeconfig_is_taken_after_a_401(tmp_path):
    access = load(tmp_path, {"token": "t1"})
    assert access.renew(access.headers()) is False
    write(tmp_path, {"token": "t2"})
    assert access.headers() == {"Authorization": "Bearer t1"}, "nobody has refused it"
    assert access.renew(access.headers()) is True
    assert (access.headers(), access.generation) == ({"Authorization": "Bearer t2"}, 0)
    assert access.renew(access.headers()) is False


def test_a_new_certificate_in_the_kubeconfig_is_taken_after_a_401(authority, tmp_path):
    access = load(tmp_path, of_client(authority.client("alice")))
    first = access.ssl_context()
    write(tmp_path, of_client(authority.client("alice-again")))
    assert access.renew() is True
    assert (access.ssl_context() is first, access.generation) == (False, 1)


def test_another_kind_of_login_is_taken_with_all_it_needs(plugin, authority, tmp_path):
    (tmp_path / "token").write_text("of a file")
    plugin.give(token="of a plugin")
    access = load(tmp_path, {"token": "t1"})
    kinds = [
        ({"tokenFile": "token"}, {"Authorization": "Bearer of a file"}, 0),
        (plugin.user(), {"Authorization": "Bearer of a plugin"}, 0),
        (of_client(authority.client("alice")), {}, 1),
        ({"token": "t2"}, {"Authorization": "Bearer t2"}, 2),
    ]
    for user, headers, generation in kinds:
        write(tmp_path, user)
        assert access.renew(access.headers()) is True
        assert (access.headers(), access.generation) == (headers, generation)


@pytest.mark.parametrize(
    "meanwhile",
    [
        lambda folder: (folder / "kubeconfig").unlink(),
        lambda folder: (folder / "kubeconfig").write_text("users: ["),
        lambda folder: (folder / "kubeconfig").write_text(""),
        lambda folder: write(folder, {"token": ["no text"]}),
        lambda folder: write(folder, {"client-certificate-data": "bm8gUEVN", "client-key-data": "bm8gUEVN"}),
        lambda folder: write(folder, {"exec": {"command": "p", "apiVersion": "v0"}}),
        lambda folder: write(folder, {"token": "t2"}, server="https://127.0.0.1:2"),
    ],
    ids=["missing", "damaged", "empty", "not understood", "no certificate", "no plugin", "another server"],
)
def test_a_kubeconfig_that_is_of_no_use_meanwhile_leaves_all_as_it_is(tmp_path, meanwhile):
    access = load(tmp_path, {"token": "t1"})
    meanwhile(tmp_path)
    assert access.renew(access.headers()) is False
    assert access.headers() == {"Authorization": "Bearer t1"}
    write(tmp_path, {"token": "t3"})
    assert access.renew(access.headers()) is True
    assert access.headers() == {"Authorization": "Bearer t3"}


def test_a_new_login_is_found_in_the_file_that_has_the_user_and_of_the_context_that_was_chosen(
    tmp_path, monkeypatch
):
    def user(token):
        users = [{"name": "u", "user": {"token": token}}]
        (tmp_path / "users").write_text(yaml.safe_dump({"users": users}))

    user("t1")
    rest = yaml.safe_load(write(tmp_path).read_text())
    (tmp_path / "kubeconfig").write_text(yaml.safe_dump(rest | {"users": []}))
    monkeypatch.setenv("KUBECONFIG", f"{tmp_path / 'kubeconfig'}:{tmp_path / 'users'}")
    access = Access.load()
    monkeypatch.delenv("KUBECONFIG")
    (tmp_path / "kubeconfig").write_text(yaml.safe_dump(rest | {"users": [], "current-context": "another"}))
    user("t2")
    assert access.renew(access.headers()) is True
    assert access.headers() == {"Authorization": "Bearer t2"}
    (tmp_path / "users").unlink()
    assert access.renew(access.headers()) is False


def test_a_new_login_is_taken_when_there_are_no_credentials_to_be_refused(plugin, tmp_path):
    plugin.say(code=1, err="login has expired")
    access = load(tmp_path, plugin.user())
    with pytest.raises(NoCredentials):
        access.headers()
    write(tmp_path, {"token": "t1"})
    assert access.headers() == {"Authorization": "Bearer t1"}


def test_a_client_and_a_tunnel_go_on_with_a_new_login(api, tmp_path):
    api.tokens = {"t1"}
    api.put(pod())
    clients, tunnels = (Access.load(api.kubeconfig(tmp_path, {"token": "t1"})) for _ in range(2))

    async def scene():
        client = await KubeClient.open(clients)
        try:
            api.tokens = {"t2"}
            with pytest.raises(ApiError):
                await client.version()
            api.kubeconfig(tmp_path, {"token": "t2"})
            assert await client.version() == (1, 35)
        finally:
            await client.close()

    asyncio.run(scene())
    open_portforward(tunnels, "default", "web", timeout=5).sock.close()
