"""The ports of k3d's load balancer: which host port leads to which node port, and how that is changed.

Used by `kecs port-forward`. `k3d node edit` makes the container anew: 17 s, in the last 7 of which nothing
answers on any of its ports, the cluster's API there included, and connections are closed. So what is there
already is not asked for, several ports are one edit, and a port that something else has is found before:
k3d finds it after 10 s and leaves the load balancer dead. Two edits at once, or one that is killed, leave
two load balancers, and no later edit works. Therefore all happens under the cluster's lock, and what counts
is not what k3d says at the end but what its nodes are then.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field

from kecs.errors import ExitCode, KecsError
from kecs.k3d import nodes
from kecs.k3d.cluster import K3dCluster
from kecs.k3d.failures import failure
from kecs.k3d.tools import check
from kecs.net import listener

EDIT = 120.0
EACH = 0.3
"""Seconds for an edit, and more for each port that the load balancer has: all are published again."""
CAN_REMOVE = (5, 9)
"""The first k3d whose `node edit` has `--port-delete`."""
LOOPBACK = "127.0.0.1"
_REACHED = (LOOPBACK, "0.0.0.0", "")  # noqa: S104 - recognised, not bound
"""Addresses of a mapping that answers on 127.0.0.1; an empty one is all."""
_API = 6443
_BINDING = re.compile(r"(?P<address>[^ ,]*):(?P<first>\d+)(?:-(?P<last>\d+))?->")


@dataclass(frozen=True, slots=True, order=True)
class PortMapping:
    """A port of 127.0.0.1 that leads to a node port."""

    host_port: int
    node_port: int
    address: str = field(default=LOOPBACK, compare=False)

    @property
    def spec(self) -> str:
        """Return it as k3d reads it, and as people do."""
        address = f"{self.address}:" if self.address else ""
        return f"{address}{self.host_port}:{self.node_port}"


@dataclass(frozen=True, slots=True)
class Edits:
    """What is to be taken away, then what to be added: one edit each, because k3d does not do both in one."""

    remove: tuple[PortMapping, ...] = ()
    add: tuple[PortMapping, ...] = ()

    def __len__(self) -> int:
        """Return how many edits it takes: 0, 1 or 2."""
        return bool(self.remove) + bool(self.add)


def edits(there: Iterable[PortMapping], wanted: Iterable[PortMapping], unwanted: Collection[int]) -> Edits:
    """Compare what the load balancer has with what it shall have; `unwanted` are host ports to take away.

    A wanted host port that leads to another node port is taken away first. All others stay as they are.
    """
    now = {one.host_port: one for one in there}
    asked = {one.host_port: one for one in wanted}
    moved = [now[port] for port, one in asked.items() if port in now and now[port] != one]
    gone = [one for port, one in now.items() if port in unwanted and port not in asked]
    add = [one for port, one in asked.items() if now.get(port) != one]
    return Edits(tuple(sorted(moved + gone)), tuple(sorted(add)))


class Balancer:
    """The load balancer of a cluster, if it has one."""

    def __init__(self, cluster: K3dCluster) -> None:
        self._cluster = cluster

    def exists(self) -> bool:
        """Tell whether the cluster was made with one; it may be dead."""
        return bool(self._balancers())

    def mappings(self) -> list[PortMapping]:
        """Return its ports, without those of the cluster's API; none without a load balancer.

        Of several, which an edit that broke off left, those of the one that serves, or served.
        """
        one = self._serving()
        return [] if one is None else _mappings(one)

    def can_remove(self) -> bool:
        """Tell whether this k3d can take a port away again."""
        major, minor = check(self._cluster.tools).k3d.split(".")[:2]
        return (int(major), int(minor)) >= CAN_REMOVE

    def check(self, add: Iterable[PortMapping], leaving: Collection[int] = ()) -> None:
        """Raise when an edit cannot be made: exit 4 when a host port to be added is held by anything.

        `leaving` are given up before. Exit 2: there is no load balancer, 5: the cluster does not run.
        """
        self._require_up()
        one = self._serving()
        assert one is not None, "there is one"
        mine = {port.host_port: port.container_port for port in one.ports if port.address in _REACHED}
        for mapping in add:
            port = mapping.host_port
            if port in leaving:
                continue
            if port in mine:
                raise _taken(port, "the load balancer itself, " + _leads_to(mine[port]))
            if holder := self._container_with(port):
                raise _taken(port, f"the container `{holder}`")
            _check_free(port)

    def add(self, mappings: Iterable[PortMapping]) -> None:
        """Add them in one edit; see `change`."""
        self.change(Edits(add=tuple(mappings)))

    def remove(self, mappings: Iterable[PortMapping]) -> None:
        """Take them away in one edit; see `change`."""
        self.change(Edits(remove=tuple(mappings)))

    def change(self, wanted: Edits) -> None:
        """Make the edits that are still needed, one after the other, and see that they are done.

        A load balancer that is dead, or that an earlier edit left, is repaired first. When an edit fails,
        or is broken off by an exception, it is repaired, so that it serves again what it did; then this
        raises `KecsError` (exit 4: a port is taken, 5: Docker), with the command that helps when the repair
        failed as well.
        """
        with self._cluster.locked():
            self.mend()
            there = set(self.mappings())
            remove = [one for one in self.mappings() if one in wanted.remove]
            add = sorted(set(wanted.add) - there)
            self.check(add, {one.host_port for one in remove})
            if remove:
                self._edit("--port-delete", remove)
            if add:
                self._edit("--port-add", add)

    def mend(self) -> None:
        """Repair a load balancer that is dead, or that an edit left. Raises as `check` does."""
        with self._cluster.locked():
            self._require_up()
            if self._cluster.state()[0] == "broken":
                self._cluster.start()

    # How it is edited

    def _require_up(self) -> None:
        """Raise when there is no load balancer, or its cluster does not run; it may be broken."""
        state, detail = self._cluster.state()
        if state in ("stopped", "absent", "half-made"):
            raise KecsError(
                f"the k3d cluster `{self._cluster.name}` is {state}: {detail}",
                "`kecs stop`, then `kecs start` starts it, or makes it anew",
                ExitCode.UNREACHABLE,
            )
        if not self.exists():
            raise KecsError(
                f"the k3d cluster `{self._cluster.name}` has no load balancer",
                "an instance has one from its first start on: `kecs destroy`, then "
                "`kecs start --runtime k3d --load-balancer`",
                ExitCode.USAGE,
            )

    def _edit(self, option: str, mappings: list[PortMapping]) -> None:
        try:
            self._run_edit(option, mappings)
        except BaseException as error:
            self._repair(error)
            if self._is_done(option, mappings):
                if isinstance(error, KecsError):
                    return  # it had come far enough
                self._cluster.note("the edit was done already, and stays")
            raise

    def _run_edit(self, option: str, mappings: list[PortMapping]) -> None:
        cluster = self._cluster
        words = [word for one in mappings for word in (option, one.spec)]
        limit = EDIT + EACH * (len(self.mappings()) + len(mappings))
        said = cluster.k3d("node", "edit", cluster.balancer, *words, limit=limit)
        if not self._is_done(option, mappings):
            mine = {one.host_port for one in mappings}

            def hint(port: int) -> str:
                own = f"{port} was its own, and something took it meanwhile: end that, then try again"
                return _when_taken(port) if port in mine else own

            what = f"editing the load balancer `{cluster.balancer}`"
            raise failure(what, said, f"see what `k3d node edit {cluster.balancer}` says", hint)

    def _is_done(self, option: str, mappings: Iterable[PortMapping]) -> bool:
        if self._cluster.state()[0] != "running":
            return False
        there = self.mappings()
        if option == "--port-add":
            return all(one in there for one in mappings)
        return not any(one in there for one in mappings)

    def _repair(self, error: BaseException) -> None:
        """Have the load balancer serve again after `error`; say so in a note when it did not.

        Raises a `KecsError` that tells of both failures when that fails.
        """
        cluster = self._cluster
        try:
            if cluster.state()[0] == "running":
                return
            cluster.start()
        except KecsError as second:
            first = f"{error.message}; " if isinstance(error, KecsError) else "the edit was broken off; "
            raise KecsError(
                f"{first}and the load balancer `{cluster.balancer}` could not be repaired: {second.message}",
                f"`kecs start` tries again, and so does `k3d cluster start {cluster.name}`"
                + (f"; first {second.hint}" if second.hint else ""),
                second.exit_code,
            ) from error
        cluster.note("the edit broke off; the load balancer was repaired, and serves again")

    # What there is

    def _balancers(self) -> list[nodes.Node]:
        return [node for node in self._cluster.nodes() if node.role == "loadbalancer"]

    def _serving(self) -> nodes.Node | None:
        """Return the load balancer, of several the one that runs, else one that ever ran."""

        def worth(node: nodes.Node) -> tuple[bool, bool, bool]:
            return (node.state == "running", node.state != "created", node.name == self._cluster.balancer)

        return max(self._balancers(), key=worth, default=None)

    def _container_with(self, port: int) -> str | None:
        """Return the name of a running container that has this host port, by Docker's word.

        Without its userland proxy Docker listens on none, and yet gives a port to one container only.
        """
        said = self._cluster.docker("ps", "--format", "{{.Names}}\t{{.Ports}}")
        if said.code != 0:
            raise failure("asking Docker for the ports of its containers", said, "see what `docker ps` says")
        for line in said.stdout.splitlines():
            name, _, ports = line.partition("\t")
            if port in _host_ports(ports):
                return name
        return None


def _mappings(node: nodes.Node) -> list[PortMapping]:
    return [
        PortMapping(port.host_port, port.container_port, port.address)
        for port in node.ports
        if port.container_port != _API and port.protocol == "tcp" and port.address in _REACHED
    ]


def _host_ports(ports: str) -> Iterator[int]:
    """Read Docker's `127.0.0.1:30000-30050->30000-30050/tcp, 80/tcp`."""
    for match in _BINDING.finditer(ports):
        if match["address"].strip("[]") in (*_REACHED, "::"):
            yield from range(int(match["first"]), int(match["last"] or match["first"]) + 1)


def _check_free(port: int) -> None:
    """Raise when another program listens on the port; what only Docker may bind is asked by a connection."""
    try:
        for sock in listener.bind([LOOPBACK], port):
            sock.close()
    except listener.PortTaken as error:
        raise _taken(port, error.holder or "another program") from error
    except KecsError:
        with socket.socket() as sock:
            sock.settimeout(1.0)
            if sock.connect_ex((LOOPBACK, port)) == 0:
                raise _taken(port, "another program") from None


def _leads_to(port: int) -> str:
    return "for the cluster's API" if port == _API else f"and leads to node port {port}"


def _taken(port: int, holder: str) -> KecsError:
    return KecsError(
        f"port {port} cannot be published: it is taken by {holder}", _when_taken(port), ExitCode.CONFLICT
    )


def _when_taken(port: int) -> str:
    return f"publish another port, or end what holds {port} (`docker ps` and `ss -ltnp` tell)"
