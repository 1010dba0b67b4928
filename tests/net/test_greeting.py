"""Whom a client asks for: read whole, byte by byte and with more behind it, and never past the limit."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.net.greetings import client_hello, fragmented, get

from kecs.net import turned_away
from kecs.net.greeting import LIMIT, Asked, Greeting, Speech

HTTP, TLS = Speech.HTTP, Speech.TLS


def asked(data: bytes, step: int | None = None) -> Asked | None:
    """Feed `data` at once, or in steps of `step` bytes, until something is clear."""
    greeting = Greeting()
    for at in range(0, len(data), step or len(data)):
        answer = greeting.feed(data[at : at + (step or len(data))])
        if answer is not None:
            return answer
    return None


CLEAR = {
    "Host": (get("web.prod.localhost:20000"), Asked(HTTP, "web.prod.localhost", "GET")),
    "capitals and a final dot": (get("Web.LOCALHOST."), Asked(HTTP, "web.localhost", "GET")),
    "an address": (get("[::1]:20000"), Asked(HTTP, "::1", "GET")),
    "spaces around it": (
        b"GET / HTTP/1.1\r\nhOST:\t web.localhost \r\n",
        Asked(HTTP, "web.localhost", "GET"),
    ),
    "the first of two": (
        get("a.localhost")[:-2] + b"Host: b.localhost\r\n",
        Asked(HTTP, "a.localhost", "GET"),
    ),
    "the target's own host": (
        get("b.localhost", "http://u@A.localhost:1/x"),
        Asked(HTTP, "a.localhost", "GET"),
    ),
    "a path with a colon": (get("a.localhost", "/x://b/"), Asked(HTTP, "a.localhost", "GET")),
    "line feeds only": (b"PUT /x HTTP/1.0\nHost: a.localhost\n\n", Asked(HTTP, "a.localhost", "PUT")),
    "empty lines before": (b"\r\n\r\n" + get("a.localhost"), Asked(HTTP, "a.localhost", "GET")),
    "no Host": (get(None, version="1.0"), Asked(HTTP, None, "GET")),
    "an empty Host": (get(""), Asked(HTTP, None, "GET")),
    "a folded line is no header": (
        b"GET / HTTP/1.1\r\nA: b\r\n Host: a.localhost\r\n\r\n",
        Asked(HTTP, None, "GET"),
    ),
    "HTTP/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", Asked(Speech.HTTP2, None)),
    "HTTP/0.9": (b"GET /\r\n", Asked(Speech.UNKNOWN, None)),
    "SSH": (b"SSH-2.0-OpenSSH_9.2\r\n", Asked(Speech.UNKNOWN, None)),
    "something binary": (b"\x00\x00\x00\x08", Asked(Speech.UNKNOWN, None)),
    "a server name": (client_hello("Web.prod.localhost"), Asked(TLS, "web.prod.localhost")),
    "no server name": (client_hello(None), Asked(TLS, None)),
    "a hello in many records": (fragmented(client_hello("web.localhost"), 7), Asked(TLS, "web.localhost")),
    "a record of another kind": (b"\x16\x03\x01\x00\x04\x02\x00\x00\x00", Asked(Speech.UNKNOWN, None)),
    "no version of TLS": (b"\x16\x02\x01\x00\x04\x01\x00\x00\x00", Asked(Speech.UNKNOWN, None)),
    "an empty hello": (b"\x16\x03\x01\x00\x04\x01\x00\x00\x00", Asked(TLS, None)),
}


@pytest.mark.parametrize("name", CLEAR)
def test_what_is_asked_for_is_the_same_in_pieces_of_any_size_and_with_more_behind_it(name):
    data, expected = CLEAR[name]
    assert asked(data) == expected
    assert asked(data + b"\x00more\r\n\r\n" * 9) == expected
    for step in (1, 2, 3, 7, 100):
        assert asked(data, step) == expected


@pytest.mark.parametrize(
    "data", [get("web.localhost")[:30], client_hello("web.localhost")[:-1], b"\r\n", b"\x16", b"GET"]
)
def test_what_is_not_clear_yet_is_waited_for(data):
    assert asked(data) is None
    assert asked(data, 1) is None


@pytest.mark.parametrize("step", [None, 1, 1000])
def test_a_host_is_looked_for_within_the_limit_only(step):
    long = b"GET / HTTP/1.1\r\nCookie: " + b"x" * LIMIT + b"\r\nHost: web.localhost\r\n\r\n"
    assert asked(long, step) == Asked(HTTP, None, "GET", too_long=True)
    within = b"GET / HTTP/1.1\r\nCookie: " + b"x" * (LIMIT - 80) + b"\r\nHost: web.localhost\r\n\r\n"
    assert asked(within, step) == Asked(HTTP, "web.localhost", "GET")
    hello = client_hello("web.localhost")
    stuffed = fragmented(hello[:5] + b"\x01\x00\xff\xff" + bytes(LIMIT), 4096)
    assert asked(stuffed, step) == Asked(TLS, None, too_long=True)


@given(st.binary(min_size=1, max_size=300) | st.binary(max_size=300).map(lambda data: b"\x16\x03\x01" + data))
def test_anything_is_read_the_same_whole_and_byte_by_byte(data):
    assert asked(data) == asked(data, 1)


@given(st.binary(max_size=600), st.integers(0, 600))
def test_a_hello_of_which_parts_are_wrong_never_fails(noise, at):
    hello = bytearray(client_hello("web.prod.localhost"))
    hello[at : at + len(noise)] = noise
    whole = asked(bytes(hello))
    assert whole == asked(bytes(hello), 3)


@given(st.text("abcdefgh0123456789-", min_size=1, max_size=63), st.integers(1, 40))
def test_every_name_is_found_in_both_languages(label, step):
    name = f"{label}.prod.localhost"
    assert asked(get(name + ":80"), step) == Asked(HTTP, name, "GET")
    with contextlib.suppress(ValueError):  # what Python does not take for a host name
        assert asked(client_hello(name), step) == Asked(TLS, name)


# What is answered


def test_an_unknown_name_is_told_the_known_ones():
    text = turned_away.answer(
        Asked(HTTP, "x.localhost", "GET"), ["b.localhost", "a.localhost"], 20000
    ).decode()
    head, _, body = text.partition("\r\n\r\n")
    assert head.startswith("HTTP/1.1 404 Not Found\r\n")
    assert f"Content-Length: {len(body)}" in head
    assert "Connection: close" in head
    assert "`x.localhost`" in body
    assert body.index("http://a.localhost:20000/") < body.index("http://b.localhost:20000/")


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "::1", "x.localhost"])
def test_names_are_told_to_who_asked_this_machine(host):
    assert b"a.localhost" in turned_away.answer(Asked(HTTP, host, "GET"), ["a.localhost"], 1)


@pytest.mark.parametrize("host", ["evil.example", "localhost.evil.example", "10.0.0.1", "xlocalhost"])
def test_names_are_not_told_to_a_page_whose_own_name_was_made_to_lead_here(host):
    text = turned_away.answer(Asked(HTTP, host, "GET"), ["a.localhost"], 1)
    assert text.startswith(b"HTTP/1.1 404")
    assert b"a.localhost" not in text


@pytest.mark.parametrize(
    ("said", "begin"),
    [
        (Asked(HTTP, None, "GET"), b"HTTP/1.1 400 "),
        (Asked(HTTP, None, "GET", too_long=True), b"HTTP/1.1 431 "),
        (Asked(TLS, "x.localhost"), b"\x15\x03\x03\x00\x02\x02\x70"),
        (Asked(Speech.HTTP2, None), b"\x00\x00\x00\x04"),
        (Asked(Speech.UNKNOWN, None), b""),
    ],
)
def test_each_is_answered_in_its_own_language(said, begin):
    answer = turned_away.answer(said, ["a.localhost"], 1)
    assert answer.startswith(begin)
    assert bool(answer) == bool(begin)


def test_head_gets_no_body():
    assert turned_away.answer(Asked(HTTP, "x", "HEAD"), [], 1).endswith(b"\r\n\r\n")


def test_of_very_many_names_some_are_listed_and_the_rest_counted():
    names = [f"s{number:04}.localhost" for number in range(turned_away.MOST + 5)]
    text = turned_away.answer(Asked(HTTP, "localhost", "GET"), names, 1)
    assert b"s0199" in text
    assert b"s0200" not in text
    assert b"and 5 more" in text
