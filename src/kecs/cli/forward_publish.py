"""The ports of k3d's load balancer that forwards publish: what a command changes of them, and when.

Used by `port-forward start|run|stop|down`. The agent keeps what is wished (`publish` of a forward); here the
load balancer is made to have it: said and asked first, because an edit cuts all of its ports for a while, in
as few edits as possible, and proved by an answer. Order: take away, change the forwards, add. So whatever is
broken off is done by the same command again: a wish without a port is seen, a port without a wish is not.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

import click

from kecs.cli import patience
from kecs.cli.forward_row import Row
from kecs.cli.session import Session
from kecs.errors import ExitCode, KecsError

if TYPE_CHECKING:
    from kecs.client.endpoints import Target
    from kecs.client.instance import Instance
    from kecs.forward.spec import ForwardSpec
    from kecs.k3d.balancer import Balancer, Edits, PortMapping

EDIT = 17
CUT = 7
"""Seconds that an edit takes, and for how many of them nothing answers (measured on k3d 5.9)."""
NODE_PORT = 10.0
"""Seconds in which the cluster has the node port of a service that was just created."""
ANSWER = 30.0
"""Seconds in which a published port has to answer once its edit is done; a task that is up does at once."""
AGAIN = 0.2

yes_option = click.option(
    "-y", "--yes", is_flag=True, help="Do not ask before an edit of k3d's load balancer."
)
keep_option = click.option(
    "--keep-published",
    is_flag=True,
    help="Leave published ports on k3d's load balancer until `kecs destroy`: no edit, nothing is cut.",
)


class Wish(NamedTuple):
    """A port that shall lead to a service."""

    port: int
    name: str
    """The forward, as people know it."""
    region: str
    cluster: str
    service: str
    target_port: int | str | None

    @property
    def target(self) -> str:
        """`prod/web:80`."""
        return f"{self.cluster}/{self.service}" + (f":{self.target_port}" if self.target_port else "")


def of_rows(rows: Iterable[Row]) -> list[Wish]:
    """Return what forwards that exist wish."""
    return [
        Wish(row["publish"], row["name"], row["region"], row["cluster"], row["service"], row["targetPort"])
        for row in rows
        if row.get("publish")
    ]


def of_specs(specs: Iterable[ForwardSpec], region: str) -> list[Wish]:
    """Return what forwards to be wish; `region` is the instance's."""
    return [
        Wish(
            spec.publish,
            spec.name or str(spec.target),
            spec.target.region or region,
            spec.target.cluster,
            spec.target.service or "",
            spec.target_port,
        )
        for spec in specs
        if spec.publish is not None
    ]


def rows(session: Session) -> list[Row]:
    """Return the forwards as they are now."""
    from kecs.client import launch

    answer = launch.ask_agent(session.paths, session.note, lambda agent: agent.ask("forward.list"))
    found: list[Row] = answer["forwards"]
    return found


class Publishing:
    """What one command does about published ports."""

    def __init__(self, session: Session, instance: Instance, *, yes: bool) -> None:
        """Find the cluster. Raises `KecsError`: exit 5 without k3d or Docker, 4 when it is not ours."""
        from kecs.client import k3d
        from kecs.k3d.balancer import Balancer, Edits

        assert instance.k3d is not None, "checked by `kecs.client.published`"
        self._session = session
        self._instance = instance
        self._k3d = instance.k3d
        self._yes = yes
        cluster = k3d.cluster_of(session.paths, k3d.tools_of(instance, os.environ), self._note)
        k3d.refuse_foreign(cluster, instance.id)
        self.balancer: Balancer = Balancer(cluster)
        self.edits: Edits = Edits()
        self.late: list[Wish] = []
        """Wishes that wait for a node port: their service does not exist, or is not public."""
        self.done: list[int] = []
        """Host ports that were added."""
        self._wishes: dict[int, Wish] = {}
        self._before: set[int] = set()
        """Host ports that the load balancer had."""
        self._stuck: set[int] = set()
        """Host ports that cannot be taken back."""

    # What is to be done

    def plan(
        self, wishes: Sequence[Wish], unwanted: Collection[int] = (), needed: Collection[Wish] = ()
    ) -> None:
        """Find out which edits make the load balancer have what is wished, and not what is unwanted.

        Waits for the node ports of those that are needed; `late` are those that have none. Raises `KecsError`
        before anything is changed: a port is taken (exit 4), Docker does not answer (5), there is no load
        balancer (2).
        """
        from kecs.k3d.balancer import edits

        known = self._node_ports(wishes, needed)
        self.late = [wish for wish in wishes if wish not in known]
        self._wishes = {wish.port: wish for wish in wishes}
        there = self.balancer.mappings()
        self._before = {one.host_port for one in there}
        found = edits(there, known.values(), unwanted)
        if found.remove and not self.balancer.can_remove():
            found = self._without_removal(found)
        if len(found):
            self.balancer.check(found.add, {one.host_port for one in found.remove})
        self.edits = found

    def _without_removal(self, found: Edits) -> Edits:
        """Say what stays because this k3d takes nothing back, and leave it as it is."""
        from kecs.k3d.balancer import Edits

        moved = {one.host_port for one in found.add}
        for one in found.remove:
            wish = self._wishes.get(one.host_port)
            self._session.warn(
                f"port {one.host_port} stays on k3d's load balancer and leads to node port {one.node_port}"
                + (f", no longer to {wish.target}" if wish and one.host_port in moved else "")
                + " until `kecs destroy`: k3d before 5.9 takes no port back"
            )
        self._stuck = {one.host_port for one in found.remove}
        return Edits(add=tuple(one for one in found.add if one.host_port not in self._stuck))

    def _node_ports(self, wishes: Sequence[Wish], needed: Collection[Wish]) -> dict[Wish, PortMapping]:
        end = time.monotonic() + NODE_PORT
        while True:
            targets = self._targets() if wishes else []
            found = {wish: mapping for wish in wishes if (mapping := _mapping(wish, targets)) is not None}
            if all(wish in found for wish in needed) or time.monotonic() >= end:
                return found
            time.sleep(AGAIN)

    def _targets(self) -> list[Target]:
        from kecs.client import launch

        return launch.ensure_controlplane(self._session.paths, self._session.note).endpoints().targets

    # What the person hears

    def show(self) -> None:
        """Say which edits there are, and what they cut."""
        note = self._session.note
        if not len(self.edits):
            return
        for one in self.edits.remove:
            note(f"load balancer: - 127.0.0.1:{one.host_port}, which leads to node port {one.node_port}")
        for one in self.edits.add:
            wish = self._wishes[one.host_port]
            note(f"load balancer: + 127.0.0.1:{one.host_port} -> node port {one.node_port} ({wish.target})")
        note(self._cost())

    def ask(self) -> None:
        """Say what is edited and cut, and ask. Raises a usage error where nobody can be, `Abort` at a no."""
        if not len(self.edits):
            return
        self.show()
        if self._yes:
            return
        if not sys.stdin.isatty():
            raise KecsError(
                "the load balancer has to be edited, which cuts connections, and nobody can be asked here",
                "say so beforehand: `--yes`",
                ExitCode.USAGE,
            )
        click.confirm("Edit the load balancer?", abort=True, err=True)

    def _cost(self) -> str:
        number = len(self.edits)
        many = (
            f"{number} edits, about {EDIT} s each; in each"
            if number > 1
            else f"one edit, about {EDIT} s; in it"
        )
        ports = sorted(self._before)
        api = self._k3d.balancer_api_port
        cut = [*(["port " + ", ".join(map(str, ports))] if ports else [])]
        cut += [f"the cluster's API on {api}"] if api else []
        return (
            f"{many} the load balancer is away for about {CUT} s and closes its connections: "
            f"{' and '.join(cut) or 'nothing leads through it yet'}; forwards and KECS do not go through it"
        )

    # What is done

    def remove(self) -> None:
        """Take away what is to go. Raises `KecsError`; the load balancer serves again then what it did."""
        from kecs.k3d.balancer import Edits

        if not self.edits.remove:
            return
        ports = [one.host_port for one in self.edits.remove]
        with self._finishing("taken away", ports):
            self.balancer.change(Edits(remove=self.edits.remove))

    def add(self) -> None:
        """Add what is to come. Raises `KecsError`; the load balancer serves again then what it did."""
        from kecs.k3d.balancer import Edits

        if not self.edits.add:
            return
        ports = [one.host_port for one in self.edits.add]
        with self._finishing("published", ports):
            self.balancer.change(Edits(add=self.edits.add))
            self.done = ports

    @contextmanager
    def _finishing(self, what: str, ports: Sequence[int]) -> Iterator[None]:
        """Let an edit come to its end, and say at Ctrl-C that it did."""
        note, done = self._session.note, False
        note(f"editing the load balancer of `{self._k3d.cluster}`")
        try:
            with patience.finishing(note, "the edit is finished first"):
                yield
                done = True
        except KeyboardInterrupt:
            if done:
                note(f"{what}: {', '.join(map(str, ports))}; the command itself was broken off after that")
            raise

    def prove(self, now: Iterable[Row], needed: Collection[int] = ()) -> KecsError | None:
        """Wait until the published ports answer requests: those that were added, and all others too.

        A forward that is not ACTIVE has nobody to answer yet: that is said. Returns the error when one of
        `needed` does not answer; of others it is a warning.
        """
        if not len(self.edits):
            return None
        from kecs.k3d import answers

        error = None
        gone = {one.host_port for one in self.edits.remove} | self._stuck
        there = (self._before - gone) | set(self.done)
        for row in now:
            port = row.get("publish")
            if port not in there:
                continue
            if row["state"] != "ACTIVE":
                why = f": {row['reason']}" if row["reason"] else ""
                self._session.note(
                    f"port {port} answers when `{row['name']}` does; it is {row['state']}{why}"
                )
            elif not answers.wait(port, ANSWER):
                name = row["name"]
                text = f"port {port} of `{name}` is published, and does not answer after {ANSWER:g} s"
                if port in needed:
                    error = KecsError(text, f"it stays published; `kecs explain forward {name}` tells more")
                else:
                    self._session.warn(text)
        return error

    def say_late(self) -> None:
        """Say which wishes have to wait."""
        for wish in self.late:
            self._session.warn(
                f"port {wish.port} of `{wish.name}` is not published yet: {wish.target} has no node port; "
                "run the command again when the service exists"
            )

    def _note(self, text: str) -> None:
        """Pass on what the adapter says, but for the steps that k3d tells of."""
        if not text.startswith(_STEPS):
            self._session.note(text)


_STEPS = ("Renaming ", "Creating ", "Stopping ", "Starting ", "Started ", "Deleting ")


def withdraw(
    session: Session, instance: Instance, leaving: Iterable[Row], *, keep: bool, yes: bool
) -> Publishing | None:
    """Take the ports of forwards that are about to stop from the load balancer; None: they have none.

    With `keep`, or where k3d cannot take a port back, say that it stays. Raises as `Publishing`, and then the
    forwards have to stay too.
    """
    wishes = of_rows(leaving)
    if not wishes:
        return None
    if keep:
        for wish in wishes:
            session.note(f"port {wish.port} stays on k3d's load balancer until `kecs destroy`")
        return None
    try:
        publishing = Publishing(session, instance, yes=yes)
        publishing.plan([], [wish.port for wish in wishes])
    except KecsError as error:
        hint = "`--keep-published` stops the forwards and leaves the port where it is"
        raise KecsError(error.message, error.hint_and(hint), error.exit_code) from error
    publishing.ask()
    publishing.remove()
    return publishing


def _mapping(wish: Wish, targets: Iterable[Target]) -> PortMapping | None:
    from kecs.client import published
    from kecs.k3d.balancer import PortMapping

    port = published.node_port_of(targets, wish.region, wish.cluster, wish.service, wish.target_port)
    return None if port is None else PortMapping(wish.port, port)
