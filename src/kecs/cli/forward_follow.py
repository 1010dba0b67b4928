"""`kecs port-forward run --watch`: follow the file, and tell what happens to its forwards meanwhile.

Two threads take turns: one applies the file when it changes, the other tells of changes of state. While a
plan is applied and printed the other one is silent, and does not repeat what the plan said.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from kecs.cli import config_file, forward_changes
from kecs.cli.forward_live import Lines
from kecs.cli.forward_row import Row
from kecs.cli.session import Session
from kecs.errors import ExitCode, KecsError

if TYPE_CHECKING:
    from kecs.client.rpc_types import ApplyReply
    from kecs.forward.file import FileSpec

AGAIN = 1.0
"""Seconds between two tries to reach an instance that was stopped while its file is followed."""

PATIENCE = 5.0
"""Seconds that a thread may take to leave which is about to bring an agent back."""


class Teller:
    """Prints what happens to the forwards of one file, on a thread of its own, until `leave`."""

    def __init__(self, session: Session, owner: Path) -> None:
        self.turn = threading.Lock()
        """Held while a plan is applied and printed."""
        self._session = session
        self._owner = str(owner)
        self._lines = Lines()
        self._rows: dict[str, Row] = {}
        self._listener = forward_changes.Listener()
        self._thread = threading.Thread(target=self.tell, name="tell of forwards", daemon=True)

    def start(self) -> None:
        """Begin to tell."""
        self._thread.start()

    def leave(self) -> None:
        """Tell no more; it starts no agent after this."""
        self._listener.leave()
        if self._thread.is_alive():
            self._thread.join(PATIENCE)

    def knows(self, reply: ApplyReply) -> None:
        """Note what the person read in a plan; `turn` is held."""
        from kecs.client.rpc_types import to_json

        for step in reply.steps:
            if step.forward is None:
                continue
            if step.sign == "-":
                self._rows.pop(step.forward.id, None)
            else:
                self._rows[step.forward.id] = to_json(step.forward)
        self._lines.know(self._rows.values())

    def tell(self) -> None:
        """Print changes until `leave`; a stopped instance is said once, and waited for."""
        said = None
        left = self._listener.left
        while not left.is_set():
            try:
                for changed, removed in forward_changes.changes(self._session, listener=self._listener):
                    with self.turn:
                        self._show(changed, removed)
                    said = None
            except KecsError as error:
                if error.message != said and not left.is_set():
                    self._session.warn(error.message)
                said = error.message
            left.wait(AGAIN)

    def _show(self, changed: list[Row], removed: list[str]) -> None:
        ours = [row for row in changed if row["owner"] == self._owner]
        gone = [self._rows.pop(one) for one in removed if one in self._rows]
        self._rows |= {row["id"]: row for row in ours}
        self._lines.show(self._rows, ours, gone)


def follow(
    session: Session,
    config: str,
    follower: config_file.Follower,
    good: FileSpec,
    apply: Callable[[FileSpec], object],
) -> None:
    """Apply the file each time it changes, until Ctrl-C; a wrong one is named and changes nothing.

    `config` is what the person called the file, `good` what it said when it was applied last.
    """
    wrong = False
    while True:
        time.sleep(config_file.LOOK)
        if not follower.look():
            continue
        try:
            spec = config_file.read(follower.path, config)
            if spec != good:
                apply(spec)
            elif wrong:
                session.note(f"`{config}` says what it said before")
        except KecsError as error:
            session.warn(f"{error.message}\nthe forwards stay as they are")
            if error.hint and error.exit_code != ExitCode.USAGE:
                session.note(f"hint: {error.hint}")
            wrong = True
        else:
            good, wrong = spec, False
