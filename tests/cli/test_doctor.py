"""`kecs doctor`, the command: what is printed, and its exit code."""

from __future__ import annotations

import json

from kecs.client.doctor.examination import CHECKS
from kecs.client.doctor.finding import error, ok, warning


def only(monkeypatch, *findings):
    """Let the examination find these."""
    for name in list(CHECKS):
        monkeypatch.delitem(CHECKS, name)
    monkeypatch.setitem(CHECKS, "all", lambda _machine: findings)


def test_trouble_is_told_with_what_to_do_and_exit_code_1(kecs, monkeypatch):
    only(monkeypatch, ok("home", "it is yours"), error("proxies", "a proxy is set", "export NO_PROXY"))
    ran = kecs("doctor")
    assert ran.code == 1
    assert ran.out == (
        "ok        home         it is yours\n"
        "error     proxies      a proxy is set\n"
        "                       export NO_PROXY\n"
    )
    assert ran.err == "1 errors, 0 warnings\n"


def test_warnings_are_no_failure(kecs, monkeypatch):
    only(monkeypatch, warning("clock", "it is early", "wait"))
    ran = kecs("doctor", "-o", "json")
    assert ran.code == 0
    assert json.loads(ran.out) == [
        {"check": "clock", "level": "warning", "text": "it is early", "advice": "wait"}
    ]


def test_it_starts_nothing_and_needs_no_instance(kecs, home):
    ran = kecs("doctor", "-o", "json")
    assert {each["check"] for each in json.loads(ran.out)} == set(CHECKS)
    home.instance()
    kecs("doctor")
    assert home.alive() == []
