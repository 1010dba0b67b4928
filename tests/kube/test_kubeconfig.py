"""A kubeconfig means here what it means to kubectl, and what is wrong with one is said in words."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import yaml

from kecs.errors import ExitCode, KecsError
from kecs.kube import kubeconfig


def write(path, **content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(content))
    return path


def entry(kind, name, **content):
    return {"name": name, kind: content}


def simple(path, context="one", server="https://one.test:6443", user=None, current="one"):
    return write(
        path,
        **{
            "current-context": current,
            "clusters": [entry("cluster", f"c-{context}", server=server)],
            "users": [entry("user", f"u-{context}", **(user or {"token": f"of-{context}"}))],
            "contexts": [entry("context", context, cluster=f"c-{context}", user=f"u-{context}")],
        },
    )


def refused(*arguments, **environ):
    with pytest.raises(KecsError) as raised:
        kubeconfig.choose(*(arguments or (None, None)), environ)
    assert raised.value.exit_code is ExitCode.UNREACHABLE
    return raised.value


def test_the_current_context_is_chosen_when_none_is_named(tmp_path):
    chosen = kubeconfig.choose(simple(tmp_path / "k"), None, {})
    assert (chosen.name, chosen.cluster.server, chosen.user.token) == (
        "one",
        "https://one.test:6443",
        "of-one",
    )
    assert chosen.source == tmp_path / "k"


def test_the_default_is_kubectls(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    simple(tmp_path / ".kube" / "config")
    assert kubeconfig.choose(None, None, {}).name == "one"
    assert kubeconfig.choose(None, None, {"KUBECONFIG": ""}).name == "one"


def test_no_kubeconfig_at_all_names_where_it_was_looked_for(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    error = refused()
    assert str(tmp_path / ".kube" / "config") in error.message
    assert "--kubeconfig" in error.hint


def test_a_file_that_was_named_must_exist(tmp_path):
    assert str(tmp_path / "missing") in refused(tmp_path / "missing", None).message


def test_an_unknown_context_names_those_that_exist(tmp_path):
    error = refused(simple(tmp_path / "k"), "prod")
    assert "no context 'prod'" in error.message
    assert "there are: one" in error.hint


def test_no_current_context_names_those_that_exist(tmp_path):
    error = refused(simple(tmp_path / "k", current=""), None)
    assert "no current context" in error.message
    assert "there are: one" in error.hint


def test_of_several_files_the_first_to_set_something_wins(tmp_path):
    first = simple(tmp_path / "a", "one", "https://first.test", current="")
    second = simple(tmp_path / "b", "one", "https://second.test", current="two")
    third = simple(tmp_path / "c", "two", "https://two.test", current="one")
    named = os.pathsep.join(["", str(first), str(tmp_path / "missing"), str(second), str(third)])
    chosen = kubeconfig.choose(None, None, {"KUBECONFIG": named})
    assert (chosen.name, chosen.cluster.server) == ("two", "https://two.test")
    assert kubeconfig.choose(None, "one", {"KUBECONFIG": named}).cluster.server == "https://first.test"


def test_the_files_that_were_merged_can_be_named_again(tmp_path):
    first, second = simple(tmp_path / "a", current="two"), simple(tmp_path / "b", "two")
    named = os.pathsep.join([str(first), str(second)])
    source = kubeconfig.choose(None, None, {"KUBECONFIG": named}).source
    assert kubeconfig.choose(source, None, {}).name == "two"


def test_a_context_may_take_its_parts_from_other_files(tmp_path):
    clusters = write(tmp_path / "a" / "k", clusters=[entry("cluster", "c", server="https://c.test")])
    users = write(tmp_path / "b" / "k", users=[entry("user", "u", token="t")])
    contexts = write(tmp_path / "k", contexts=[entry("context", "x", cluster="c", user="u")])
    named = os.pathsep.join(map(str, (contexts, clusters, users)))
    chosen = kubeconfig.choose(None, "x", {"KUBECONFIG": named})
    assert (chosen.cluster_folder, chosen.user_folder) == (tmp_path / "a", tmp_path / "b")


def test_a_context_that_names_what_is_not_there_is_refused(tmp_path):
    path = write(tmp_path / "k", contexts=[entry("context", "x", cluster="nowhere", user="u")])
    assert "cluster 'nowhere'" in refused(path, "x").message


def test_a_context_without_a_user_is_allowed(tmp_path):
    path = write(
        tmp_path / "k",
        clusters=[entry("cluster", "c", server="https://c.test")],
        contexts=[entry("context", "x", cluster="c")],
    )
    assert kubeconfig.choose(path, "x", {}).user == kubeconfig.User()


def test_nulls_where_kubectl_writes_them_are_nothing(tmp_path):
    path = tmp_path / "k"
    path.write_text(
        "current-context: x\npreferences: {}\nusers: null\n"
        "clusters: [{name: c, cluster: {server: 'https://c.test', proxy-url: null}}]\n"
        "contexts: [{name: x, context: {cluster: c, user: ''}}]\n"
    )
    assert kubeconfig.choose(path, None, {}).cluster.proxy_url == ""


@pytest.mark.parametrize("text", ["{", "a: b: c", "- a\n- b\n", "just words", "\x00"])
def test_what_is_no_kubeconfig_is_named_without_its_text(tmp_path, text):
    path = tmp_path / "k"
    path.write_text(text)
    assert str(path) in refused(path, None).message


def test_an_error_in_a_file_does_not_show_the_credentials_in_it(tmp_path):
    path = tmp_path / "k"
    path.write_text("users:\n- name: u\n  user: {token: s3cr3t\n")
    error = refused(path, None)
    assert "line" in error.message
    assert "s3cr3t" not in error.message + (error.hint or "")


def test_a_value_of_the_wrong_type_is_named_by_its_field(tmp_path):
    error = refused(simple(tmp_path / "k", user={"token": 12345}), None)
    assert "token" in error.message
    assert "12345" not in error.message


def test_a_user_never_shows_what_is_in_it(tmp_path):
    chosen = kubeconfig.choose(simple(tmp_path / "k", user={"token": "s3cr3t"}), None, {})
    assert "s3cr3t" not in repr(chosen)


def test_a_colon_in_the_name_of_a_file_is_part_of_its_name(tmp_path):
    path = simple(tmp_path / "a:b")
    assert kubeconfig.files(path, {}) == ([path], True)
    assert kubeconfig.files(Path("/x/a:/x/b"), {}) == ([Path("/x/a"), Path("/x/b")], False)
