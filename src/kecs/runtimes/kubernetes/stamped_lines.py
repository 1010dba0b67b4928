"""A container's log as the kubelet tells it with `timestamps=true`, over any number of streams: pure.

The kubelet puts a time (RFC 3339, nanoseconds) and a blank before each line, and begins where it is asked to,
to the second (`sinceTime`). `StampedLines` takes the times away again, and what an earlier stream of the same
log has told already: after a stream broke, nothing is lost or told twice. Used by `log_stream`.

The order of a log's lines is the order in its file. Their times are nearly in that order, not quite, since
containerd takes those of stdout and stderr before the lines come to be written. So the greatest time is kept,
and how many lines came since; as many are passed over, wherever they stand.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime

import msgspec

_STAMP = rb"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?(?:Z|[+-]\d\d:\d\d)"
_AT_LINE = re.compile(rb"^(%b) " % _STAMP, re.MULTILINE)
_HERE = re.compile(rb"(%b) " % _STAMP)
_PARTS = re.compile(r"([^.Z+]{19})(?:\.(\d+))?(.+)")
_UNCLEAR = 1 << 16
"""Bytes of a line without a time that wait for its end. The kubelet's own messages are shorter."""
_EARLIER = 1
"""Seconds by which more is asked for than the greatest time needs: lines out of order are there, too."""


class Mark(msgspec.Struct, frozen=True, kw_only=True):
    """How far a log was told."""

    latest: str | None = None
    """The greatest time of a line; None: nothing was told."""
    lines: int = 0
    """Lines since the first with that time, itself too."""
    inside: int | None = None
    """Bytes of the last line that were told, when it has not ended."""

    @property
    def since(self) -> str | None:
        """The `sinceTime` from which on the rest is to be asked for."""
        if self.latest is None:
            return None
        second = _instant(self.latest)[0] - _EARLIER
        return datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class StampedLines:
    """Takes streams of one log, one after the other: `begin`, then each chunk by `take`, then `rest`."""

    def __init__(self, mark: Mark | None = None) -> None:
        """`mark`: what was told before."""
        known = mark or Mark()
        self._latest = known.latest.encode() if known.latest is not None else None
        self._lines = known.lines
        self._inside = known.inside
        self.begin()

    @property
    def mark(self) -> Mark:
        """How far the log was told by now."""
        latest = self._latest.decode() if self._latest is not None else None
        return Mark(latest=latest, lines=self._lines, inside=self._inside)

    def begin(self) -> None:
        """Take that a new stream begins, which was asked for from `mark.since` on."""
        self._unread = b""
        self._in_line = False
        """The next bytes belong to a line that has begun in this stream."""
        self._told_before = self._lines
        """Lines still to be passed over; with all of them to go, older ones come before them."""
        self._behind = self._latest is not None
        self._passing = False
        """The line that is passed over has not ended."""
        self._cut = 0
        """Bytes still to be passed over of the line that the stream before has broken off in."""

    def take(self, data: bytes) -> bytes:
        """Return what is new of the log in the next chunk of the stream, without times."""
        told = b""
        if self._behind:
            told, data = self._catch_up(self._unread + data)
            self._unread = b""
            if self._behind:
                self._unread = data
                return b""
        return told + self._new(data)

    def rest(self) -> bytes:
        """Return what the stream ended with and is not the container's.

        It is an unfinished time, or why the kubelet cannot go on, which it writes into the stream itself.
        """
        return self._unread

    def _new(self, data: bytes) -> bytes:
        told = b""
        if self._in_line:
            data = self._without_cut(data)
            end = data.find(b"\n") + 1
            if not end:
                if self._inside is not None:
                    self._inside += len(data)
                return data
            told, data = data[:end], data[end:]
            self._in_line, self._inside = False, None
        elif self._unread:
            data = self._unread + data
            self._unread = b""
        pieces = _AT_LINE.split(data)
        last = data.rfind(b"\n") + 1
        if last < len(data):  # a line that has not ended
            begun = _HERE.match(data, last)
            if begun is not None:
                self._in_line, self._inside = True, len(data) - begun.end()
            elif len(data) - last < _UNCLEAR:
                self._unread = data[last:]
                pieces[-1] = pieces[-1][: len(pieces[-1]) - len(self._unread)]
            else:  # a server that knows no times: better told as it is than not at all
                self._in_line, self._inside = True, None
        self._note(pieces[1::2])
        return told + b"".join(pieces[::2])

    def _without_cut(self, data: bytes) -> bytes:
        cut = min(self._cut, len(data))
        self._cut -= cut
        return data[cut:]

    def _note(self, stamps: list[bytes]) -> None:
        """Count lines that were told with these times."""
        if not stamps:
            return
        top = max(stamps) if _are_alike(stamps) else max(stamps, key=_instant_of)
        if self._latest is None or _is_later(top, self._latest):
            self._latest, self._lines = top, len(stamps) - stamps.index(top)
        else:
            self._lines += len(stamps)

    def _catch_up(self, data: bytes) -> tuple[bytes, bytes]:
        """Pass over lines that were told before.

        Return what is to be told besides, and what of `data` was not looked at: all that is new once it is
        no longer `_behind`, else the beginning of a line.
        """
        assert self._latest is not None
        at = 0
        while at < len(data):
            if self._passing:
                at = data.find(b"\n", at) + 1
                if not at:
                    return b"", b""
                self._passing = False
                if not self._told_before:
                    break
                continue
            stamp = _HERE.match(data, at)
            if stamp is None:
                end = data.find(b"\n", at) + 1
                if not end:
                    return b"", data[at:]
                at = end  # the end of an older line: the kubelet gives a time at the beginning of one only
                continue
            if _is_later(stamp[1], self._latest):  # what was told is there no more: its file was rotated away
                return self._go_on_after_a_gap(), data[at:]
            if self._told_before < self._lines or not _is_later(self._latest, stamp[1]):
                self._told_before -= 1
            at = stamp.end()
            if not self._told_before and self._inside is not None:
                self._behind, self._in_line, self._cut = False, True, self._inside
                return b"", data[at:]
            self._passing = True
        if not self._told_before and not self._passing:
            self._behind = False
        return b"", data[at:]

    def _go_on_after_a_gap(self) -> bytes:
        """Take that the next line is new; return the end of the one before, which will not come any more."""
        self._behind = False
        torn, self._inside = self._inside is not None, None
        return b"\n" if torn else b""


def _are_alike(stamps: list[bytes]) -> bool:
    """Tell whether these times are in order when their bytes are: one length, one time zone.

    A node's zone changes at most once among them, so that the first and the last tell of all.
    """
    first, last = stamps[0], stamps[-1]
    same_zone = first[-1:] == last[-1:] == b"Z" or first[-6:] == last[-6:]
    return same_zone and len(set(map(len, stamps))) == 1


def _is_later(one: bytes, other: bytes) -> bool:
    if _are_alike([one, other]):
        return one > other
    return _instant_of(one) > _instant_of(other)


def _instant_of(stamp: bytes) -> tuple[int, int]:
    return _instant(stamp.decode())


def _instant(stamp: str) -> tuple[int, int]:
    """Return a time in epoch seconds and nanoseconds."""
    parts = _PARTS.fullmatch(stamp)
    assert parts is not None
    seconds = datetime.fromisoformat(parts[1] + parts[3]).timestamp()
    return int(seconds), int((parts[2] or "0").ljust(9, "0")[:9])
