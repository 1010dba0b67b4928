"""Work that must not be left half-done: Ctrl-C during it is heard, and acted upon when it is over.

For edits of k3d's load balancer, which an interruption leaves dead. A second Ctrl-C breaks the work off all
the same; whoever does the work then repairs it.
"""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextlib.contextmanager
def finishing(note: Callable[[str], None], what: str) -> Iterator[None]:
    """Let the block come to its end whatever signal comes, and raise `KeyboardInterrupt` then if one did.

    The second one raises it within the block; more are ignored, because the block repairs then. `what`
    is said at the first: `the edit is finished first`. Only on the main thread; elsewhere nothing changes.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    heard = 0

    def hear(_number: int, _frame: FrameType | None) -> None:
        nonlocal heard
        heard += 1
        with contextlib.suppress(OSError):  # the terminal may be what went away
            if heard == 1:
                note(f"{what}; a second Ctrl-C breaks it off and repairs what that leaves")
            elif heard == 2:
                note("breaking it off")
        if heard == 2:
            raise KeyboardInterrupt

    before = {number: signal.signal(number, hear) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if heard:
        raise KeyboardInterrupt
