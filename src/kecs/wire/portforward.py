"""Kubernetes' port-forward protocol (`portforward.k8s.io`) on a SPDY session: bytes in, events out.

The tunnel drives it, after the upgrade of `pods/portforward`. No I/O, no clock.

A connection to a port of the pod is a pair of streams with the same `requestid`: the *error* stream, which
the client finishes at once, and the *data* stream. Both SYNs and the first bytes leave together, nothing
waits for a reply: the server handles each stream's frames in order and answers its SYN before the next one
(moby/spdystream connection.go, `Serve` and `frameHandler`). A connection is known by its data stream's id.

What the far end tells, and when (k8s.io/kubelet pkg/cri/streaming/portforward/httpstream.go, which container
runtimes embed; containerd pkg/cri/server/sandbox_portforward_linux.go, 1.6 to 2.x):

* *Established* is never said. SYN_REPLY only means that the runtime has taken the stream; it dials the port
  after that. Only the first byte of the pod, or an end, shows what became of it.
* *Refused*: FIN on the data stream (the runtime closes it whatever happened), **then** the text on the error
  stream, then RST of the error stream. The dial comes before any copying: no byte has reached the pod.
* *Reset by the pod*: what it sent before, then exactly the same as above, a second after the reset.
* *Orderly end*: FIN on the data stream, then FIN on the error stream without a text; other runtimes the other
  way round. The pod's own end is passed on a second late, unless this side has ended too.
* *Sandbox gone*: the text, then RST of both streams.
* *A stream whose pair never came*: the text, and nothing after it.

So the FIN of a data stream says nothing yet: it is held back until the error stream has given its verdict,
which is written right behind it. A text is a verdict as soon as its frame is complete, and it concerns this
connection only.

Half-close does not reach the pod: the runtime never shuts down one direction. A second after the client's FIN
it closes both, cuts what the pod was still sending and reports an orderly end: see `Client.half_close` and
`Ended.whole`.

There is no flow control. While a pod does not read, its frames wait at the far end in one of five queues of
50 frames, which streams share; when that is full, the server reads nothing more of the whole session, answers
no PING, and does not see an RST either, as it stands in the same line. Tried: 6 MB to a pod that never reads.
So an unanswered PING on a session that is sending may mean a slow pod, and only another session helps others.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Final

from kecs.wire.spdy import REFUSED_STREAM, Buffer, Finished, GoAway, Pong, Replied, Reset, Session
from kecs.wire.spdy_headers import block, field

PROTOCOL: Final = "portforward.k8s.io"
"""Value of `X-Stream-Protocol-Version` at the upgrade."""

MAX_TEXT = 4096
"""Bytes of an error text that are kept."""


class Kind(Enum):
    """What a failure means for the one who has to go on."""

    REFUSED = "refused"
    """Nothing listens on the port."""
    RESET = "reset"
    """The pod ended the connection the hard way: pass that on."""
    GONE = "gone"
    """The pod, or its network, is no more: dial another one."""
    TIMEOUT = "timeout"
    """The dial in the pod, or the pairing of the streams, took too long."""
    OTHER = "other"


@dataclass(frozen=True, slots=True)
class Failure:
    """A connection failed; nothing more comes of it. `text` is what the far end said."""

    kind: Kind
    text: str
    untouched: bool
    """No byte of the client has reached the pod, so the connection may be made again elsewhere."""


@dataclass(frozen=True, slots=True)
class Ended:
    """The pod has sent everything and closed; nothing more comes, and nothing more can be sent."""

    whole: bool = True
    """False after `half_close`: the end may be the runtime's, a second later, in the middle of an answer."""


What = memoryview | Failure | Ended | Pong | GoAway
Event = tuple[int, What]
"""A connection's id (0: the whole session) and what happened. A memoryview is its next bytes."""

# Texts come from Go's net package in the runtime ("read: connection reset by peer"), from the runtime and
# from the streaming server. The first match counts: a refused IPv4 dial is followed by the fate of IPv6.
_TEXTS: Final = (
    ("failed to find sandbox", Kind.GONE),
    ("network namespace for sandbox", Kind.GONE),
    ("failed to statfs", Kind.GONE),
    ("not running", Kind.GONE),
    ("no such container", Kind.GONE),
    ("connection refused", Kind.REFUSED),
    ("timed out waiting for streams", Kind.TIMEOUT),
    ("i/o timeout", Kind.TIMEOUT),
    ("connection timed out", Kind.TIMEOUT),
    ("deadline exceeded", Kind.TIMEOUT),
    ("connection reset by peer", Kind.RESET),
    ("broken pipe", Kind.RESET),
)
_BEFORE_THE_DIAL: Final = ("dial tcp", "failed to connect to localhost", "timed out waiting for streams")

# What is known of a connection that has not ended.
_HALF_CLOSED, _DATA_ENDED, _NO_ERROR = 1, 2, 4


def classify(text: str) -> Failure:
    """Return what an error stream's text says."""
    low = text.lower()
    kind = next((kind for words, kind in _TEXTS if words in low), Kind.OTHER)
    untouched = kind in (Kind.REFUSED, Kind.GONE) or any(words in low for words in _BEFORE_THE_DIAL)
    return Failure(kind, text, untouched)


class Client:
    """All connections to one pod over one SPDY session.

    What concerns the session as a whole (`take`, `pending`, `ping`, `late`, `goaway`) is asked of `session`;
    nobody else may open streams on it. A connection costs three dictionary entries and no object: streams are
    opened in pairs, so an id modulo 4 tells the error stream (1) from the data stream (3), and each finds the
    other.
    """

    __slots__ = ("_fields", "_live", "_texts", "session")

    def __init__(self) -> None:
        self.session = Session()
        self._live: dict[int, int] = {}
        self._texts: dict[int, bytes] = {}
        self._fields: dict[int, bytes] = {}

    def __len__(self) -> int:
        """Return the number of connections that have not ended."""
        return len(self._live)

    def can_open(self) -> bool:
        """Whether another connection fits on this session."""
        return self.session.can_open(2)

    def open(self, port: int) -> int:
        """Queue the opening of a connection to the pod's `port` and return its id; `send` may follow at once.

        Raises ValueError when `can_open` is False.
        """
        if not self.can_open():
            raise ValueError("this session opens no more connections")
        known = self._fields.get(port)
        if known is None:
            known = self._fields[port] = field("port", str(port))
        # Any text that no other living pair has; the kubelet's own clients count from 0.
        request = field("requestid", str(self.session.next_stream >> 2))
        self.session.open(block(_ERROR, known, request), fin=True)
        connection = self.session.open(block(_DATA, known, request))
        self._live[connection] = 0
        return connection

    def next_streams(self, ahead: int = 0) -> tuple[int, int]:
        """Return the ids of the error and the data stream that `open` takes, after so many `skip`s."""
        first = self.session.next_stream + 4 * ahead
        return first, first + 2

    def skip(self, count: int) -> None:
        """Leave out the ids of `count` connections, where others suit the far end better."""
        if self.session.can_open(2 * count + 2):
            self.session.skip(2 * count)

    def send(self, connection: int, data: Buffer) -> None:
        """Queue bytes for the pod, unchanged until written. They are dropped when the connection is over."""
        self.session.data(connection, data)

    def half_close(self, connection: int) -> None:
        """Say that the client sends nothing more.

        The pod is not told, and a second later all is cut, whatever it is sending (see above).
        While an answer may still come it is better not to call this at all, and to `abort` after the answer.
        """
        state = self._live.get(connection)
        if state is not None:
            self._live[connection] = state | _HALF_CLOSED
            self.session.data(connection, b"", fin=True)

    def abort(self, connection: int) -> None:
        """Give a connection up; no event of it follows. Right too when the client has all it wanted.

        The pod sees an orderly end, within a second: the runtime cannot pass a reset on.
        """
        if self._live.pop(connection, None) is not None:
            self._forget(connection)

    def receive(self, data: Buffer) -> list[Event]:
        """Take the next bytes of the connection and return what they say; see `Session.receive`."""
        events: list[Event] = []
        for stream, what in self.session.receive(data):
            if type(what) is memoryview and stream & 2:
                events.append((stream, what))
            else:
                self._note(stream, what, events)
        if self._texts:
            self._judge(events)
        return events

    def _note(
        self, stream: int, what: memoryview | Replied | Finished | Reset | Pong | GoAway, events: list[Event]
    ) -> None:
        if isinstance(what, Pong | GoAway):
            events.append((stream, what))
            return
        connection = stream | 2
        state = self._live.get(connection)
        if state is None or isinstance(what, Replied):
            return
        if isinstance(what, memoryview):
            self._texts[connection] = (self._texts.get(connection, b"") + what)[:MAX_TEXT]
        elif isinstance(what, Reset):
            self._fail(connection, events, what)
        elif connection not in self._texts:
            state |= _DATA_ENDED if stream == connection else _NO_ERROR
            self._live[connection] = state
            if state & _DATA_ENDED and state & _NO_ERROR:
                del self._live[connection]
                self._forget(connection)
                events.append((connection, Ended(whole=not state & _HALF_CLOSED)))

    def _judge(self, events: list[Event]) -> None:
        """Fail the connections with a text whose frame has come in completely: nothing need follow it."""
        partial = self.session.partial
        for connection in [connection for connection in self._texts if connection - 2 != partial]:
            self._fail(connection, events)

    def _fail(self, connection: int, events: list[Event], reset: Reset | None = None) -> None:
        text = self._texts.get(connection, b"").decode(errors="replace")
        del self._live[connection]
        self._forget(connection)
        events.append((connection, classify(text) if reset is None or text else _describe(reset)))

    def _forget(self, connection: int) -> None:
        """Reset what is open of the pair: the far end keeps a stream until this side has ended it too."""
        self._texts.pop(connection, None)
        self.session.reset(connection)
        self.session.reset(connection - 2)


_ERROR: Final = field("streamtype", "error")
_DATA: Final = field("streamtype", "data")


def _describe(reset: Reset) -> Failure:
    """Return the failure of a stream that was reset without a text."""
    if reset.status == REFUSED_STREAM and reset.by_peer:
        return Failure(Kind.OTHER, "the server took no more streams", untouched=True)
    who = (
        "the server reset the stream" if reset.by_peer else "what the server sent on the stream made no sense"
    )
    return Failure(Kind.OTHER, f"{who} (status {reset.status})", untouched=False)
