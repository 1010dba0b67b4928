"""What a test leaves is removed while the next ones run, and looked at when the session ends.

Kubernetes waits five seconds before it begins to remove a namespace (`namespaceDeletionGracePeriod` in
pkg/controller/namespace), so a test that waited for it would mostly do nothing else.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent import futures
from concurrent.futures import Future, ThreadPoolExecutor


class Leaving:
    """All that is being removed."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(4, thread_name_prefix="leaving")
        self._removals: list[tuple[str, Future[object]]] = []

    def begin(self, remove: Callable[[], object]) -> None:
        """Have `remove` called soon; what it raises is told at the end, with the test that is running now."""
        who = os.environ.get("PYTEST_CURRENT_TEST", "the session")
        self._removals.append((who, self._pool.submit(remove)))

    def settle(self) -> None:
        """Wait until nothing is being removed: before a part of the cluster is broken."""
        futures.wait([removal for _, removal in self._removals])

    def wait(self) -> None:
        """Wait until all is removed. Raises AssertionError with all that failed."""
        self._pool.shutdown(wait=True)
        failed = [(who, error) for who, removal in self._removals if (error := removal.exception())]
        assert not failed, "\n".join(f"after {who}: {error}" for who, error in failed)
