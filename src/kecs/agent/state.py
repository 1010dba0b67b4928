"""The agent's two files: `config.yaml`, which is a promise, and `state.yaml`, which is for display.

`config.yaml` names each forward with its chosen port; it is on the disk before a person is told that the
forward exists (docs/design/contracts.md, 4). `kecs.client.ports` reads the ports of other instances' ones.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

from kecs import files
from kecs.errors import KecsError
from kecs.forward.ports import port_text
from kecs.forward.spec import (
    HOLD_CONNECTIONS,
    HOLD_SECONDS,
    IDLE_SECONDS,
    AutoSpec,
    ForwardSpec,
    Notify,
    Probe,
    Protocol,
    Retry,
    RouteChoice,
    Target,
    tags_text,
)
from kecs.paths import InstancePaths

VERSION = 1
TASK_ID_LENGTH = 32
"""Digits of a task's id; fewer in an entry stand for a task that did not exist when it was asked for."""
WRITE_EVERY = 1.0
"""Seconds between two writes of `state.yaml`."""

_log = logging.getLogger(__name__)
_Port = Annotated[int, msgspec.Meta(ge=1, le=65535)]


class Entry(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """One forward as `config.yaml` keeps it: what was asked, and what was chosen for it."""

    id: Annotated[str, msgspec.Meta(pattern="^pf-[0-9a-f]{8}$")]
    name: Annotated[str, msgspec.Meta(pattern="^[A-Za-z0-9._-]{1,63}$")]
    type: Literal["service", "task"]
    region: str
    cluster: str
    service: str | None = None
    task_id: str | None = None
    """The task; with a service or tags, the one that `autoReconnect: false` pinned, once it was chosen."""
    tags: dict[str, str] = {}
    """All of these a task must have (type `task`)."""
    local_port: _Port
    target_port: _Port | None = None
    """None while only its name is known, since what has the port does not exist yet."""
    target_port_name: str | None = None
    """Set when the port was asked for by name: then the name decides, whatever its number becomes."""
    protocol: Protocol = "tcp"
    """Of the target port, and of the local one."""
    address: list[str] = []
    """As asked for; empty means loopback."""
    route: RouteChoice = "auto"
    hold_seconds: float = HOLD_SECONDS
    hold_connections: int = HOLD_CONNECTIONS
    idle_seconds: float = IDLE_SECONDS
    auto_reconnect: bool = True
    """False: it ends with the first task that was chosen for it."""
    retry: Retry = Retry()
    probe: Probe | None = None
    notify: Notify | None = None
    strict: bool = False
    publish: _Port | None = None
    """Port of 127.0.0.1 that k3d's load balancer is to lead to the service: the command line has it so."""
    owner: str | None = None
    """Real path of the file that defines it; None: by hand."""
    auto: bool = False
    """Made by `auto: true` of its file, and not by a line of it."""
    ended: str | None = None
    """Why it ended: then it is not listened for again."""
    created_at: float

    def __post_init__(self) -> None:
        """Refuse an entry that leads nowhere."""
        if not (self.service if self.type == "service" else self.task_id or self.tags):
            raise ValueError(f"the forward `{self.name}` names no {self.type}")
        if self.target_port is None and self.target_port_name is None:
            raise ValueError(f"the forward `{self.name}` names no target port")

    @property
    def has_whole_task_id(self) -> bool:
        """Whether it is one task and no other: asked for by its whole id, or pinned."""
        return self.task_id is not None and len(self.task_id) == TASK_ID_LENGTH

    @property
    def is_pinned(self) -> bool:
        """Whether the task is one that was chosen for it, and not named."""
        return self.has_whole_task_id and (self.service is not None or bool(self.tags))

    @property
    def target(self) -> str:
        """`prod/web`, `prod/0123abcd` for a task, `prod/Env=dev,Part=worker` by tags."""
        return f"{self.cluster}/{self.service or tags_text(self.tags) or (self.task_id or '')[:8]}"

    @property
    def port(self) -> int | str:
        """The target port as people know it: its name when it was asked for by that."""
        return self.target_port_name or self.target_port or 0

    @property
    def port_text(self) -> str:
        """The same in words: `80`, `http`, `53/udp`."""
        return port_text(self.port, self.protocol)

    @classmethod
    def of(cls, spec: ForwardSpec, **chosen: Any) -> Entry:
        """Return the entry of a forward that was asked for; `chosen` are the members that were decided.

        Those of the target and the ports always are; what else a spec says is taken over as it is.
        """
        return cls(
            type=spec.target.type,
            tags=spec.target.tags,
            address=spec.address,
            route=spec.route,
            hold_seconds=spec.hold_seconds,
            hold_connections=spec.hold_connections,
            idle_seconds=spec.idle_seconds,
            auto_reconnect=spec.auto_reconnect,
            retry=spec.retry,
            probe=spec.probe,
            notify=spec.notify,
            strict=spec.strict,
            publish=spec.publish,
            **chosen,
        )

    @property
    def spec(self) -> ForwardSpec:
        """What was asked for, with what was chosen for it in the places of what was left open."""
        return ForwardSpec(
            target=Target(
                type=self.type,
                cluster=self.cluster,
                service=self.service,
                task=None if self.service or self.tags else self.task_id,
                tags=self.tags,
                region=self.region,
            ),
            name=self.name,
            local_port=self.local_port,
            target_port=self.port,
            protocol=self.protocol,
            address=self.address,
            auto_reconnect=self.auto_reconnect,
            route=self.route,
            hold_seconds=self.hold_seconds,
            hold_connections=self.hold_connections,
            idle_seconds=self.idle_seconds,
            retry=self.retry,
            probe=self.probe,
            notify=self.notify,
            strict=self.strict,
            publish=self.publish,
        )


class AutoEntry(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """`auto: true` of one file."""

    owner: str
    """Real path of the file."""
    spec: AutoSpec
    stopped: list[str] = []
    """What a person stopped of it (`us-east-1/prod/web:80`): not made again before the file is applied."""


class NamesEntry(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """The one port of all names, and who wants it."""

    port: _Port = msgspec.field(name="localPort")
    """Called as the forwards' ports are, so that `kecs.client.ports` finds it."""
    owners: list[str] = []
    """Real paths of files; the empty one is a person."""


class Config(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """The contents of `config.yaml`."""

    version: int = VERSION
    forwards: list[Entry]
    autos: list[AutoEntry] = []
    names: NamesEntry | None = None

    def __post_init__(self) -> None:
        """Refuse forwards that cannot exist side by side."""
        for member in ("id", "name"):
            values = [getattr(entry, member) for entry in self.forwards]
            if len(set(values)) < len(values):
                raise ValueError(f"two forwards have the same {member}")
        owners = [auto.owner for auto in self.autos]
        if len(set(owners)) < len(owners):
            raise ValueError("two autos have the same owner")


def load(paths: InstancePaths) -> tuple[Config, list[str]]:
    """Read `config.yaml`; return what it says, and warnings for the person.

    A file that cannot be understood is moved aside and named in a warning. Raises `KecsError` (exit 4) for
    a newer one, which stays where it is.
    """
    path = paths.forwards_config
    try:
        document = files.read_yaml(path, version=VERSION)
        if document is None:
            return Config(forwards=[]), []
        try:
            return msgspec.convert(document, Config), []
        except msgspec.ValidationError as error:
            raise files.Unreadable(path, str(error)) from error
    except files.Unreadable as error:
        aside = _move_aside(path)
        return Config(forwards=[]), [f"`{path}` could not be read ({error.why}); it was moved to `{aside}`"]


def save(paths: InstancePaths, config: Config) -> None:
    """Replace `config.yaml`. Raises `KecsError` when it cannot be written; the old one is then whole."""
    files.write_yaml(paths.forwards_config, msgspec.to_builtins(config))


def _move_aside(path: Path) -> Path:
    try:
        return files.move_aside(path)
    except OSError as error:
        raise files.unusable(path, error) from error


class StateFile:
    """Writes `state.yaml` when something changed, at most once in `WRITE_EVERY` seconds."""

    def __init__(self, path: Path, rows: Callable[[], Sequence[Any]]) -> None:
        self._path = path
        self._rows = rows
        self._due: asyncio.TimerHandle | None = None
        self._written_at = -WRITE_EVERY
        self._failed = False

    def touch(self) -> None:
        """Note that what `rows` returns has changed."""
        if self._due is None:
            loop = asyncio.get_running_loop()
            self._due = loop.call_at(max(loop.time(), self._written_at + WRITE_EVERY), self._write)

    def close(self) -> None:
        """Write what is still to be written."""
        if self._due is not None:
            self._due.cancel()
            self._write()

    def _write(self) -> None:
        self._due = None
        self._written_at = asyncio.get_running_loop().time()
        document = {"version": VERSION, "time": time.time(), "forwards": self._rows()}
        # JSON is YAML, and takes a hundredth of the time: for 200 forwards 2 ms instead of 150, in which the
        # relay loop, which shares the interpreter, could move nothing.
        text = msgspec.json.format(msgspec.json.encode(document), indent=1)
        try:
            files.write_atomic(self._path, text)
        except KecsError as error:
            # It may be lost: a full disk must not stop forwards. Said once, not every second.
            if not self._failed:
                _log.warning("%s", error.message)
            self._failed = True
        else:
            self._failed = False
