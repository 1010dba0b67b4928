"""What is under way to the far end of a tunnel, so that an upload which nobody reads holds up nobody else.

Pure bookkeeping for `kecs.kube.courtesy`: times are arguments, nothing is sent from here.

SPDY as Kubernetes speaks it has no flow control. The container runtime (github.com/moby/spdystream,
connection.go, `Serve`) reads the frames of a connection into `WORKERS` queues of 50, by stream id modulo 5,
and each worker waits until the program in the Pod has taken a frame before it looks at the next, be that a
reset. So

* a Pod that does not read stops every fifth stream, and with a full queue all of them;
* a frame for a connection that the runtime has given up, because the Pod refused or closed it, is never
  taken: that worker stands still until the whole tunnel ends.

Hence this account of frames by worker. A frame has been taken when its stream gets an answer, or when a
PING that was sent behind it is answered: PINGs go to the workers in turn, and we are the only one who sends
any.
"""

from __future__ import annotations

WORKERS = 5
WINDOW = 32
"""Frames that one worker may have to take: the queue has room for 50, control frames among them."""
PROBE = 16
"""Frames after which a PING asks whether they were taken."""
MOST_ASKED = 10
"""PINGs that one worker may have to answer: they take room in its queue, too."""
STUCK = 0.5
"""Seconds after which a worker that has not answered counts as standing still."""


class Uploads:
    """The account of one tunnel."""

    __slots__ = (
        "_asked", "_begun", "_first", "_last", "_pings", "_sent", "_suspects", "_taken", "_talking", "_turn",
        "_worried",
    )  # fmt: skip

    def __init__(self) -> None:
        self._sent = [0] * WORKERS
        """Frames so far, by worker."""
        self._taken = [0] * WORKERS
        """How many of them the worker is rid of, as far as is known."""
        self._worried = [0] * WORKERS
        """Streams on which more may be sent, so that they would suffer."""
        self._talking: set[int] = set()
        """They themselves."""
        self._begun: dict[int, tuple[tuple[int, int], ...]] = {}
        """Stream without an answer -> worker and number of the frames that opened it and its error stream."""
        self._first: dict[int, int] = {}
        """Stream -> the number of its first frame after its last answer."""
        self._last: dict[int, int] = {}
        """Stream -> the number of its last frame."""
        self._pings: dict[int, tuple[int, int, float]] = {}
        """PING -> its worker, how many frames are ahead of it, when it was sent."""
        self._asked = [0] * WORKERS
        """PINGs that are not answered yet."""
        self._turn = 0
        self._suspects: dict[int, tuple[int, bool]] = {}
        """Worker -> the number of a frame that perhaps nobody ever takes, and whether the far end gave it
        up."""

    # Streams

    def opened(self, error: int, stream: int) -> None:
        """Count a stream, and the frames that open it and its error stream."""
        self._worried[stream % WORKERS] += 1
        self._talking.add(stream)
        self._begun[stream] = ((error % WORKERS, self._count(error)), (stream % WORKERS, self._count(stream)))

    def sent(self, stream: int) -> None:
        """Count a frame of data."""
        number = self._count(stream)
        self._first.setdefault(stream, number)
        self._last[stream] = number

    def answered(self, stream: int) -> None:
        """Take that the Pod has answered on the stream, so that it has read something of it."""
        self._has_begun(stream)
        number = self._first.pop(stream, 0)
        if number:
            self._take(stream % WORKERS, number)

    def quietened(self, stream: int) -> None:
        """Take that nothing more is sent on the stream."""
        if stream in self._talking:
            self._talking.remove(stream)
            self._worried[stream % WORKERS] -= 1

    def over(self, stream: int, *, given_up: bool) -> None:
        """Forget a stream. Frames of it that are under way may be what its worker waits with for ever.

        `given_up`: the far end said that it is over, so that nobody reads them any more.
        """
        if given_up:
            self._has_begun(stream)
        self.quietened(stream)
        worker = stream % WORKERS
        self._begun.pop(stream, None)
        self._first.pop(stream, None)
        last = self._last.pop(stream, 0)
        if last > self._taken[worker]:
            other, certain = self._suspects.get(worker, (0, False))
            self._suspects[worker] = max(last, other), certain or given_up

    def _count(self, stream: int) -> int:
        worker = stream % WORKERS
        self._sent[worker] = number = self._sent[worker] + 1
        return number

    def _has_begun(self, stream: int) -> None:
        for worker, number in self._begun.pop(stream, ()):
            self._take(worker, number)

    # Workers

    def has_room(self, stream: int) -> bool:
        """Whether one more frame of the stream may be sent.

        Where one worker stands still for so long that nobody can be asked any more, the others are trusted.
        """
        worker = stream % WORKERS
        if self._sent[worker] - self._taken[worker] < WINDOW:
            return True
        return self.exhausted and not self._asked[worker]

    def cost(self, *streams: int) -> tuple[int, int]:
        """Return how bad these (an error and a data stream) would be to open: the least is the best."""
        bad = sum(1 for stream in streams if self._is_doubtful(stream % WORKERS))
        return bad, self._worried[streams[-1] % WORKERS]

    def is_behind(self, stream: int) -> bool:
        """Whether frames of the stream are under way."""
        return self._last.get(stream, 0) > self._taken[stream % WORKERS]

    @property
    def quiet(self) -> bool:
        """Whether nothing is under way, so that one worker is as good as another."""
        return self._sent == self._taken

    def stuck(self, now: float, seconds: float) -> set[int]:
        """Return the workers that have not answered for so long."""
        return {worker for worker, _, when in self._pings.values() if when + seconds <= now}

    def suspects(self, *, certain: bool = False) -> set[int]:
        """Return the workers that may stand still for ever; `certain`: if they do, then for ever."""
        return {worker for worker, (_, given_up) in self._suspects.items() if given_up or not certain}

    def has_not_begun(self, stream: int, workers: set[int]) -> bool:
        """Whether what opens the stream waits behind something with one of these workers."""
        begun = self._begun.get(stream, ())
        return any(worker in workers and number > self._taken[worker] for worker, number in begun)

    def _is_doubtful(self, worker: int) -> bool:
        return worker in self._suspects or self._sent[worker] - self._taken[worker] > PROBE

    # PINGs

    def due(self) -> bool:
        """Whether it is to be asked what was taken: as many PINGs as there are workers."""
        if self.exhausted:
            return False
        return any(
            not self._asked[worker]
            and (worker in self._suspects or self._sent[worker] - self._taken[worker] >= PROBE)
            for worker in range(WORKERS)
        )

    @property
    def exhausted(self) -> bool:
        """Whether a worker has more PINGs to answer than it should: nobody is to be asked any more."""
        return max(self._asked) >= MOST_ASKED

    @property
    def asking(self) -> bool:
        """Whether a PING is not answered yet."""
        return bool(self._pings)

    def wait_anew(self, now: float) -> None:
        """Count the time of PINGs that are not answered from now on."""
        self._pings = {ping: (worker, ahead, now) for ping, (worker, ahead, _) in self._pings.items()}

    def asked(self, ping: int, now: float) -> None:
        """Count a PING that is sent behind all that was counted before."""
        worker, self._turn = self._turn, (self._turn + 1) % WORKERS
        self._asked[worker] += 1
        self._pings[ping] = (worker, self._sent[worker], now)

    def pong(self, ping: int) -> None:
        """Take the answer to a PING."""
        known = self._pings.pop(ping, None)
        if known is not None:
            worker, ahead, _ = known
            self._asked[worker] -= 1
            self._take(worker, ahead)

    def _take(self, worker: int, number: int) -> None:
        if number > self._taken[worker]:
            self._taken[worker] = number
        if worker in self._suspects and self._taken[worker] >= self._suspects[worker][0]:
            del self._suspects[worker]
