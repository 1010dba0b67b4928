"""Logs with the kubelet's times: read in pieces of any size, broken off anywhere, and gone on with."""

from __future__ import annotations

import time
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kecs.runtimes.kubernetes.stamped_lines import Mark, StampedLines

SECOND = 1_000_000_000


def stamp(at: int, *, zone: str = "Z", short: bool = False) -> bytes:
    """Return the time `at` nanoseconds as a kubelet writes it; `short` as those before Kubernetes 1.20."""
    whole, nanoseconds = divmod(at, SECOND)
    hours = int(zone[:3]) if zone != "Z" else 0
    text = datetime.fromtimestamp(1_800_000_000 + whole + 3600 * hours, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    fraction = f".{nanoseconds:09}"
    return (text + (fraction.rstrip("0").rstrip(".") if short else fraction) + zone).encode()


def told(entries: list[tuple[int, bytes]], since: str | None, **how: object) -> bytes:
    """Return what a kubelet tells of a file with these entries, as its `ReadLogs` does.

    It leaves out what is older than `since`, and gives a time only where the entry before ended its line.
    """
    first = datetime.fromisoformat(since).timestamp() if since else 0.0
    out, at_line = b"", True
    for at, text in entries:
        if 1_800_000_000 + at / SECOND >= first:
            out += (stamp(at, **how) + b" " if at_line else b"") + text  # type: ignore[arg-type]
        at_line = text.endswith(b"\n")
    return out


def read(lines: StampedLines, data: bytes, piece: int | None = None) -> bytes:
    piece = piece or max(1, len(data))
    return b"".join(lines.take(data[at : at + piece]) for at in range(0, len(data), piece))


PLAIN = [(0, b"one\n"), (5, b"\n"), (SECOND, b"2026-01-01T00:00:00Z of its own\r\n"), (SECOND + 1, b"no end")]
SAME_TIME = [(7, b"a\n"), (7, b"b\n"), (7, b"b\n"), (7, b"c\n"), (8, b"d\n")]
OUT_OF_ORDER = [(9, b"out\n"), (7, b"err\n"), (8, b"err\n"), (9, b"out\n"), (6, b"err\n"), (12, b"z\n")]
OVER_A_SECOND = [(SECOND, b"out\n"), (SECOND - 1, b"err\n"), (SECOND + 2, b"z\n")]
LONG = [(1, b"x" * 16384), (3 * SECOND, b"y" * 16384), (3 * SECOND + 1, b"end\n"), (4 * SECOND, b"next\n")]
LONG_LATER = [
    (0, b"a\n"),
    *[(each * SECOND, b"part") for each in range(1, 9)],
    (9 * SECOND, b"\n"),
    (9 * SECOND, b"b\n"),
]
LOGS = {
    "plain": PLAIN,
    "one time": SAME_TIME,
    "out of order": OUT_OF_ORDER,
    "out of order over a second": OVER_A_SECOND,
    "a line of several entries": LONG,
    "a line of many seconds": LONG_LATER,
}
ZONES = {"UTC": {}, "a zone of the node's own": {"zone": "+05:00"}, "times without zeros": {"short": True}}


@pytest.mark.parametrize("how", ZONES)
@pytest.mark.parametrize("piece", [1, 7, 50, None])
@pytest.mark.parametrize("log", LOGS)
def test_times_are_taken_away_whatever_the_pieces(log: str, piece: int | None, how: str) -> None:
    lines = StampedLines()
    assert read(lines, told(LOGS[log], None, **ZONES[how]), piece) == b"".join(text for _, text in LOGS[log])
    assert lines.rest() == b""


@pytest.mark.parametrize("how", ZONES)
@pytest.mark.parametrize("log", LOGS)
def test_a_log_that_breaks_off_anywhere_is_gone_on_with(log: str, how: str) -> None:
    whole, text = told(LOGS[log], None, **ZONES[how]), b"".join(text for _, text in LOGS[log])
    step = 1 if len(whole) < 1000 else 997
    for end in range(0, len(whole) + 1, step):
        before = StampedLines()
        got = read(before, whole[:end])
        after = StampedLines(before.mark)  # another process knows the mark alone
        rest = told(LOGS[log], before.mark.since, **ZONES[how])
        assert got + read(after, rest) == text, f"broken off after {end} bytes"
        again = after.mark
        after.begin()
        assert read(after, told(LOGS[log], again.since, **ZONES[how])) == b"", "it was whole"
        assert after.mark == again


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_any_log_broken_off_any_number_of_times_is_told_once(data: st.DataObject) -> None:
    near = st.integers(0, 3 * SECOND) | st.sampled_from([0, 1, SECOND, SECOND + 1])
    texts = st.sampled_from([b"a\n", b"\n", b"b", b"2027-01-15T08:00:00.000000000Z \n", b"c\r\n"])
    base = sorted(data.draw(st.lists(near, max_size=12)))
    entries = [(max(0, at - data.draw(st.sampled_from([0, 0, 3]))), data.draw(texts)) for at in base]
    lines, got = StampedLines(), b""
    for _ in range(data.draw(st.integers(1, 4))):
        lines.begin()
        stream = told(entries[: data.draw(st.integers(0, len(entries)))], lines.mark.since)
        cut = stream[: data.draw(st.integers(0, len(stream)))]
        got += read(lines, cut, data.draw(st.sampled_from([None, 1, 9])))
    lines.begin()
    got += read(lines, told(entries, lines.mark.since))
    assert got == b"".join(text for _, text in entries)


def test_what_was_rotated_away_between_two_streams_is_missing_and_nothing_else() -> None:
    lines = StampedLines()
    assert read(lines, told([(0, b"one\n"), (1, b"tw")], None)) == b"one\ntw"
    lines.begin()
    after = [(2 * SECOND, b"three\n"), (2 * SECOND, b"four\n")]
    assert read(lines, told(after, lines.mark.since), 5) == b"\nthree\nfour\n"


def test_what_a_kubelet_says_of_itself_is_not_the_containers() -> None:
    lines = StampedLines()
    words = b"failed to create fsnotify watcher: too many open files"
    assert read(lines, told([(0, b"one\n")], None) + words, 11) == b"one\n"
    assert lines.rest() == words
    lines.begin()
    assert read(lines, told([(0, b"one\n")], lines.mark.since) + words, 11) == b""
    assert lines.rest() == words


def test_a_server_without_times_is_told_as_it_is() -> None:
    lines = StampedLines()
    assert read(lines, b"one\ntwo\n" + b"x" * 70_000, 1 << 12)[:8] == b"one\ntwo\n"
    assert lines.mark.latest is None


def test_more_is_asked_for_from_the_second_before_the_last() -> None:
    lines = StampedLines()
    assert lines.mark == Mark()
    assert lines.mark.since is None
    read(lines, told([(2 * SECOND + 5, b"a\n")], None, zone="-02:00"))
    assert lines.mark.since == "2027-01-15T08:00:01Z"


def test_ten_mebibytes_take_a_small_part_of_a_second() -> None:
    line = stamp(0) + b" " + b"x" * 79 + b"\n"
    chunk = line * ((1 << 16) // len(line))
    data = chunk + line[:40]
    lines = StampedLines()
    began = time.process_time()
    for _ in range(160):
        lines.take(data)
        lines.take(line[40:])
    assert time.process_time() - began < 1.0, "measured: 0.15 s"
