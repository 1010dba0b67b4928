"""What probes mean for a forward: which tasks are out of the balance, and in which words. No I/O in here.

`kecs.agent.prober` asks the tasks and keeps one `Health` for each way to one. A task is in until it fails,
and back with its first success: a probe watches tasks, it is no condition to begin with (that is the
control plane's `ready`, docs/design/contracts.md, 2).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace

import msgspec

from kecs.agent.resolution import Resolution
from kecs.agent.routes import id_of, is_node
from kecs.client.rpc_types import EndpointRow
from kecs.forward.machine import NoEndpoint
from kecs.net.messages import Endpoint

Way = tuple[str, str, int, str]
"""(id, host, port, carrier): what tells one endpoint from another, whether it drains or not."""


class Health:
    """What was heard on one way to a task."""

    __slots__ = ("_failures", "error", "failing")

    def __init__(self) -> None:
        self._failures = 0
        self.failing = False
        self.error: str | None = None
        """What the last probe answered; None after a success."""

    def took(self, error: str | None, allowed: int) -> bool:
        """Take the outcome of a probe; tell whether the task is out, or in, or for another reason, by that.

        `allowed` failures in a row take it out; one success, or that it cannot be asked, takes it in.
        """
        before = (self.failing, self.error if self.failing else None)
        self._failures = 0 if error is None else self._failures + 1
        self.failing = error is not None and (self.failing or self._failures >= allowed)
        self.error = error
        return before != (self.failing, error if self.failing else None)


def way_of(endpoint: Endpoint) -> Way:
    """Return the way that `endpoint` is."""
    return endpoint.id, endpoint.host, endpoint.port, endpoint.carrier


def to_ask(resolution: Resolution) -> dict[Way, Endpoint]:
    """Return what a probe asks: each task on its own, and the addresses of nodes only without such a way.

    Behind a node's address Kubernetes chooses who answers, so it says little of any one task. Tasks that
    were passed over for a newer one are asked too: one of them may have to take over.
    """
    taking = [
        replace(endpoint, draining=False)
        for endpoint in resolution.endpoints
        if not endpoint.draining or endpoint.id in resolution.older
    ]
    own = [endpoint for endpoint in taking if not is_node(endpoint.id)]
    return {way_of(endpoint): endpoint for endpoint in own or taking}


def without(resolution: Resolution, failing: Mapping[Way, str]) -> Resolution:
    """Take those that fail out of what a forward leads to; `failing` says what each answered.

    Connections that they have stay. While a task fails no node's address is used either where there is
    another way, since Kubernetes goes on choosing that task behind it. Where one task was chosen of several
    and fails, the next one that is well takes over.
    """
    asked = to_ask(resolution)
    bad = {way: error for way, error in failing.items() if way in asked}
    errors = {way[0]: error for way, error in bad.items()}
    if not bad or (resolution.others and resolution.chosen and resolution.chosen.task_id not in errors):
        return resolution
    successor = next((one for one in resolution.others if one.task_id not in errors), None)
    taking = {way for way, one in asked.items() if way not in bad and one.id not in resolution.older}
    if successor is not None:
        taking |= {way for way, one in asked.items() if one.id == successor.task_id}
    kept = tuple(
        replace(endpoint, draining=way_of(endpoint) not in taking)
        for endpoint in resolution.endpoints
        if endpoint.draining or way_of(endpoint) in taking
    )
    reason = _reason(errors, {way[0] for way in asked})
    serves = any(not endpoint.draining for endpoint in kept)
    return replace(
        resolution,
        endpoints=kept,
        rows=tuple(_row(row, errors) for row in resolution.rows),
        verdict=resolution.verdict if serves else NoEndpoint(reason),
        note=reason if serves else None,
        chosen=successor if resolution.others else resolution.chosen,
        older=resolution.older - {successor.task_id} if successor else resolution.older,
    )


def _row(row: EndpointRow, errors: Mapping[str, str]) -> EndpointRow:
    error = errors.get(id_of(row))
    if error is None or row.draining:
        return row
    return msgspec.structs.replace(row, ready=False, failing=error)


def _reason(errors: Mapping[str, str], asked: set[str]) -> str:
    """`1 of 2 tasks fails its probe: GET /healthz answered 503`."""
    kind = "address" if all(is_node(one) for one in asked) else "task"
    told = ", ".join(error for error, _ in Counter(errors.values()).most_common())
    if len(asked) == 1:
        return f"its only {kind} fails its probe: {told}"
    plural = {"address": "addresses", "task": "tasks"}[kind]
    verb = "fails its probe" if len(errors) == 1 else "fail their probe"
    return f"{len(errors)} of {len(asked)} {plural} {verb}: {told}"
