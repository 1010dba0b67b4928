"""The k3d cluster of one instance: made, started and repaired, stopped, deleted.

Used by `kecs start|stop|destroy|status`, by the control plane and by `balancer`. It never asks a person,
never touches the user's kubeconfig, and never looks at ECS. One create, edit, stop or delete at a time:
`locked`.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from kecs import files
from kecs.errors import ExitCode, KecsError
from kecs.k3d import kubeconfig, leftovers, repair
from kecs.k3d import wanted as wishes
from kecs.k3d.failures import docker_down, failure
from kecs.k3d.lock import Lock
from kecs.k3d.nodes import Node, State, judge, of_cluster, parse
from kecs.k3d.run import Note, Said, quiet, run
from kecs.k3d.tools import Tools
from kecs.k3d.wanted import LABEL, Wanted, check_name

__all__ = ["LABEL", "K3dCluster", "Wanted", "check_name"]

CREATE = 900.0
START = 420.0
STOP = 180.0
DELETE = 300.0
ASK = 20.0
"""Seconds for each. A first create pulls images; a delete of 1000 ports takes 89 s; questions 0.1 s."""
_PROGRESS = re.compile(r"^(Creat|Start|Stop|Delet|Inject|Prep|Renam)")


class K3dCluster:
    """One cluster, whether it exists or not."""

    def __init__(self, tools: Tools, name: str, folder: Path, note: Note = quiet) -> None:
        """`name` is `kecs-<instance>`; `folder` the instance's, where `k3d.lock` is."""
        self.tools = tools
        self.name = name
        self.folder = folder
        self.note = note
        self.balancer = f"k3d-{name}-serverlb"
        """Name of the load balancer's container, if there is one."""
        self._lock = Lock(folder / "k3d.lock")
        self._unfinished = folder / "k3d.creating"

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the cluster's lock while the block runs; the same thread may take it again.

        A program started meanwhile by `k3d` holds it too, until its own end: when this process is killed, the
        next one waits for what it left running.
        """
        with self._lock.hold(self.note):
            yield

    def k3d(self, *words: str, limit: float = ASK) -> Said:
        """Run `k3d`; progress goes to the note. Raises `DockerDown` when it did not reach Docker."""
        said = run(self.tools, words, limit=limit, note=self._progress, keep=self._lock.held)
        if down := docker_down(said):
            raise down
        return said

    def docker(self, *words: str, limit: float = ASK) -> Said:
        """Run `docker`. Raises `DockerDown` when it did not reach the daemon."""
        said = run(self.tools, words, program="docker", limit=limit, keep=self._lock.held)
        if down := docker_down(said):
            raise down
        return said

    def nodes(self) -> list[Node]:
        """Return its servers, agents and load balancers; none when it does not exist."""
        said = self.k3d("node", "list", "-o", "json")
        if said.code != 0:
            raise failure("asking k3d for its nodes", said, "see what `k3d node list` says")
        try:
            return of_cluster(parse(said.answer), self.name)
        except ValueError as error:
            raise KecsError(
                f"`k3d node list -o json` cannot be understood: {error}", "update k3d", ExitCode.UNREACHABLE
            ) from None  # that error has the text, and the text has the token

    def state(self) -> tuple[State, str]:
        """Return what its nodes amount to, and their states in words for a person."""
        return self.judged(self.nodes())

    def judged(self, nodes: Sequence[Node]) -> tuple[State, str]:
        """Return the same of nodes that were just asked for."""
        state, detail = judge(nodes, self.balancer, unfinished=self._unfinished.exists())
        if state == "half-made" and self._lock.is_busy():
            return state, "it is being created"
        return state, detail

    def owner(self) -> str | None:
        """Return the id of the instance whose cluster this is; None: somebody else's, or there is none.

        k3d keeps labels of others from its lists, so Docker is asked.
        """
        template = '{{index .Config.Labels "' + LABEL + '"}}'
        for node in self.nodes():
            if node.role == "server":
                said = self.docker("inspect", "--type", "container", "--format", template, node.name)
                label = said.stdout.strip() if said.code == 0 else ""
                return label if label and label != "<no value>" else None
        return self._begun_by()

    def create(self, wanted: Wanted) -> None:
        """Make the cluster and wait until it is up; when that fails or is interrupted, nothing is left of it.

        Raises `KecsError` (exit 2) for a name that k3d does not take, (exit 4) when a cluster of that name
        exists, `PortTaken` (exit 4), `TookTooLong` and `DockerDown` (exit 5).
        """
        check_name(wanted.name)
        with self.locked():
            if self.nodes():
                raise KecsError(
                    f"a k3d cluster `{self.name}` exists already",
                    f"`k3d cluster delete {self.name}` deletes it, and everything in it",
                    ExitCode.CONFLICT,
                )
            if left := leftovers.remove(self):
                raise KecsError(
                    f"of an earlier k3d cluster `{self.name}` there is still {left}: {left.why}",
                    f"remove it by {left.commands()}, then start again",
                    ExitCode.CONFLICT,
                )
            files.write_atomic(self._unfinished, wanted.instance_id.encode())
            try:
                self._make(wanted)
            except BaseException:
                self._undo()
                raise
            self._unfinished.unlink()

    def _make(self, wanted: Wanted) -> None:
        said = self.k3d(*wishes.creation(wanted), limit=CREATE)
        if said.code != 0:
            hint = "put that right, then start again"
            raise failure(f"creating the k3d cluster `{self.name}`", said, hint, wishes.when_taken(wanted))
        state, detail = judge(self.nodes(), self.balancer, unfinished=False)
        if state != "running":
            raise KecsError(f"the new k3d cluster `{self.name}` is not whole: {detail}", "start again")

    def start(self) -> None:
        """Start a cluster that exists, whatever state it is in, and repair what broke.

        A server or load balancer that was killed, an edit of the load balancer that broke off. On a running
        cluster it changes nothing. Raises `KecsError` (exit 3) when there is none, (exit 4) when it is
        half-made (`delete`, then `create`), `PortTaken` (exit 4) when a port of it was taken meanwhile.
        """
        with self.locked():
            state, detail = self.state()
            if state == "absent":
                raise KecsError(f"there is no k3d cluster `{self.name}`", None, ExitCode.NOT_FOUND)
            if state == "half-made":
                raise KecsError(
                    f"the k3d cluster `{self.name}` was never finished: {detail}",
                    f"delete it by `k3d cluster delete {self.name}`, then start again",
                    ExitCode.CONFLICT,
                )
            repair.strays(self)
            if self.state()[0] == "running":
                return
            said = self.k3d(
                "cluster", "start", self.name, "--wait", "--timeout", f"{wishes.PHASE}s", limit=START
            )
            if said.code != 0:
                hint = f"see what `k3d cluster start {self.name}` says"
                raise failure(
                    f"starting the k3d cluster `{self.name}`", said, hint, wishes.when_taken_meanwhile
                )
            state, detail = self.state()
            if state != "running":
                raise KecsError(
                    f"the k3d cluster `{self.name}` did not come up: {detail}",
                    "see `docker ps -a` and `docker logs` of what is not running",
                )

    def stop(self) -> None:
        """Stop its containers; k3d drains the node first, which deletes its pods. Stopped already: done."""
        with self.locked():
            if self.state()[0] in ("absent", "stopped"):
                return
            said = self.k3d("cluster", "stop", self.name, limit=STOP)
            running = [node.name for node in self.nodes() if node.state == "running"]
            if said.code != 0 or running:
                raise failure(
                    f"stopping the k3d cluster `{self.name}`",
                    said,
                    f"stop it by `docker stop {' '.join(running)}`" if running else "try again",
                )

    def delete(self) -> None:
        """Delete the cluster, and see that its containers, network and volumes are gone. None: done.

        Whose it is, is for the caller to know (`owner`). Raises `KecsError` naming what is left.
        """
        with self.locked():
            said = self.k3d("cluster", "delete", self.name, limit=DELETE)
            left = leftovers.remove(self)
            if left:
                raise KecsError(
                    f"the k3d cluster `{self.name}` is not wholly deleted; there is still {left}:"
                    f" {left.why or said.words}",
                    f"remove it by {left.commands()}",
                )
            self._unfinished.unlink(missing_ok=True)

    def kubeconfig(self, api_port: int, limit: float = 30.0) -> str:
        """Return the cluster's kubeconfig with the server at 127.0.0.1:`api_port`, as YAML. It holds keys.

        k3d writes the address that was asked for at its creation, which is the load balancer's where there is
        one. Asked again for `limit` seconds while the server has not written it.
        """
        end = time.monotonic() + limit
        while True:
            said = self.k3d("kubeconfig", "get", self.name)
            text = kubeconfig.rewritten(said.answer, api_port) if said.code == 0 else None
            if text is not None:
                return text
            if time.monotonic() > end or not self.nodes():
                raise failure(
                    f"asking k3d for the kubeconfig of `{self.name}`",
                    said,
                    f"see what `k3d kubeconfig get {self.name}` says",
                )
            time.sleep(0.5)

    def _begun_by(self) -> str | None:
        try:
            return self._unfinished.read_text().strip() or None
        except OSError:
            return None

    def _undo(self) -> None:
        """Delete what a create that failed left; when that fails too, the next start will do it."""
        try:
            self.note(f"removing what there is of the k3d cluster `{self.name}`")
            self.delete()
        except KecsError as error:
            self.note(f"not all of it could be removed: {error.message}")

    def _progress(self, text: str) -> None:
        if _PROGRESS.match(text):
            self.note(text)
