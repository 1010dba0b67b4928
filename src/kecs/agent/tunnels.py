"""The tunnels that forwards need: opened before the first client comes, kept, and given up when not needed.

Runners say which Pods they may lead to (`want`), and this keeps one connection to each: opened on a thread
of its own by `kecs.kube.upgrade`, handed to the relay loop by `Carry`, opened again when the loop says that
it was lost, and a further one when it says that one is congested. What is opened lives in the loop; nothing
of it is touched here.

`kecs.kube` is imported with the first tunnel: an instance without Kubernetes pays nothing for it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import threading
from collections.abc import Callable, Collection
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from kecs import aio
from kecs.client.instance import Instance
from kecs.errors import KecsError
from kecs.forward.backoff import Backoff
from kecs.net.messages import CarrierLost, Carry, Congested, Retire, ToLoop

if TYPE_CHECKING:
    from kecs.net.carrier import Carrier

OPEN = 10.0
"""Seconds to open a tunnel."""
AT_ONCE = 8
"""Tunnels that are opened at the same time, each by a thread."""
AGAIN = Backoff(first=0.1, cap=5.0)
"""Between two tries to open one, after the first, which follows a loss at once."""
MOST = 8
"""Tunnels to one Pod, however many of them are congested."""

_log = logging.getLogger(__name__)

Opens = Callable[[str, str], "Carrier"]
"""Opens a tunnel into a Pod (namespace, name) and takes its time for it. Raises whatever was wrong."""


class Sends(Protocol):
    """What is needed of `kecs.agent.relay.Relay`."""

    def send(self, message: ToLoop) -> None:
        """Hand a message to the relay loop."""


class _Kept:
    """The tunnels to one Pod."""

    def __init__(self) -> None:
        self.wanted_by: set[str] = set()
        self.missing = asyncio.Event()
        """One has to be opened."""
        self.missing.set()
        self.open = False
        """There is one, as far as the relay loop has said."""
        self.at_once = asyncio.Event()
        """The pause before the next try is over."""
        self.failures = 0
        self.error: str | None = None
        self.task: asyncio.Task[None] | None = None


class Tunnels:
    """All tunnels, by `namespace/pod`."""

    def __init__(
        self, relay: Sends, open_one: Opens, changed: Callable[[Collection[str]], None] = lambda _: None
    ) -> None:
        """Call `changed` with the ids of forwards when another error of a tunnel applies to them, or none."""
        self._relay = relay
        self._open = open_one
        self._changed = changed
        self._kept: dict[str, _Kept] = {}
        self._room = asyncio.Semaphore(AT_ONCE)
        self._closed = False

    def want(self, forward: str, names: Collection[str]) -> None:
        """Keep tunnels to all these for `forward`, and none that only it needed before."""
        if self._closed:
            return
        for name in names:
            kept = self._kept.get(name)
            if kept is None:
                kept = self._kept[name] = _Kept()
                kept.task = aio.create_task(self._keep(name, kept), name=f"keep the tunnel to {name}")
            kept.wanted_by.add(forward)
        for name, kept in list(self._kept.items()):
            if name not in names and forward in kept.wanted_by:
                kept.wanted_by.discard(forward)
                if not kept.wanted_by:
                    self._give_up(name)

    def error(self, name: str) -> str | None:
        """Return why there is no tunnel to `name`; None when there is, or none was tried yet."""
        kept = self._kept.get(name)
        return None if kept is None else kept.error

    def is_open(self, name: str) -> bool:
        """Tell whether there is a tunnel to this Pod."""
        kept = self._kept.get(name)
        return kept is not None and kept.open

    def lost(self, message: CarrierLost) -> None:
        """Take that a tunnel has ended: another one is opened at once, unless others are left."""
        kept = self._kept.get(message.name)
        log = _log.info if kept is None else _log.warning
        log("lost a tunnel to %s: %s", message.name, message.why, extra={"left": message.left})
        if kept is not None and not message.left:
            kept.open = False
            kept.missing.set()

    def congested(self, message: Congested) -> None:
        """Take that a client of each tunnel to a Pod does not read: one more is opened for the others."""
        kept = self._kept.get(message.name)
        if kept is not None and message.carriers < MOST:
            _log.info("opening one more tunnel to %s beside %d", message.name, message.carriers)
            kept.missing.set()

    def hurry(self) -> None:
        """Open those that are missing at once: the machine has slept, and the way may be there again."""
        for kept in self._kept.values():
            kept.at_once.set()

    async def close(self) -> None:
        """Open nothing more; those that are open are the relay loop's."""
        self._closed = True
        tasks = [kept.task for kept in self._kept.values() if kept.task is not None]
        self._kept.clear()
        await aio.cancel(*tasks)

    def _give_up(self, name: str) -> None:
        kept = self._kept.pop(name)
        if kept.task is not None:
            kept.task.cancel()
        self._relay.send(Retire(name))

    async def _keep(self, name: str, kept: _Kept) -> None:
        """Open one whenever one is missing, for ever."""
        namespace, _, pod = name.partition("/")
        while True:
            await kept.missing.wait()
            kept.missing.clear()
            async with self._room:
                try:
                    carrier = await in_a_thread(lambda: self._open(namespace, pod), _drop)
                except Exception as error:  # noqa: BLE001 - whatever it is, it is tried again and shown
                    self._failed(name, kept, error)
                else:
                    self._relay.send(Carry(name, carrier))
                    self._opened(name, kept)
                    continue
            kept.missing.set()
            kept.at_once.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(AGAIN.delay(kept.failures - 1, random.random)):
                    await kept.at_once.wait()

    def _opened(self, name: str, kept: _Kept) -> None:
        _log.info("opened a tunnel to %s", name)
        kept.failures = 0
        kept.open = True
        if kept.error is not None:
            kept.error = None
            self._changed(kept.wanted_by)

    def _failed(self, name: str, kept: _Kept, error: Exception) -> None:
        text = error.message if isinstance(error, KecsError) else str(error) or type(error).__name__
        kept.failures += 1
        if text != kept.error:
            kept.error = text
            _log.warning("no tunnel to %s: %s", name, text)
            self._changed(kept.wanted_by)


def opener(instance: Instance) -> Opens:
    """Return what opens tunnels with the kubeconfig that the instance keeps."""
    lock = threading.Lock()
    access = None

    def open_one(namespace: str, pod: str) -> Carrier:
        nonlocal access
        from kecs.kube.access import Access
        from kecs.kube.tunnel import Tunnel
        from kecs.kube.upgrade import open_portforward

        with lock:
            if access is None:
                access = Access.load(*_kubeconfig(instance))
        return Tunnel(open_portforward(access, namespace, pod, timeout=OPEN))

    return open_one


def _kubeconfig(instance: Instance) -> tuple[Path | None, str | None]:
    chosen = getattr(instance, "kubernetes", None)
    if chosen is None:
        return None, None
    return Path(chosen.kubeconfig), chosen.context


async def in_a_thread(work: Callable[[], Carrier], drop: Callable[[Carrier], None]) -> Carrier:
    """Do `work` on a thread of its own, which does not keep the process from ending.

    What it returns after this was cancelled goes to `drop`.
    """
    loop = asyncio.get_running_loop()
    outcome: asyncio.Future[Carrier] = loop.create_future()

    def settle(carrier: Carrier | None, error: Exception | None) -> None:
        if outcome.done():
            if carrier is not None:
                drop(carrier)
        elif carrier is not None:
            outcome.set_result(carrier)
        else:
            outcome.set_exception(error or RuntimeError("nothing was opened"))

    def run() -> None:
        carrier, error = None, None
        try:
            carrier = work()
        except Exception as failure:  # noqa: BLE001 - the top of the thread; it goes to who waits
            error = failure
        try:
            loop.call_soon_threadsafe(settle, carrier, error)
        except RuntimeError:  # the agent has left
            if carrier is not None:
                drop(carrier)

    threading.Thread(target=run, name="open a tunnel", daemon=True).start()
    return await outcome


def _drop(carrier: Carrier) -> None:
    with contextlib.suppress(OSError):
        carrier.sock.close()
