"""Keeps the rows of the cluster's nodes as the runtime sees them: node ports are reached at their addresses.

Run by the controller where the runtime `Exposes`. What follows from the rows is `controlplane.endpoints`'.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from functools import partial

from kecs.ecs.model import Node
from kecs.ecs.state import Tx
from kecs.errors import KecsError
from kecs.runtimes.base import Exposes, NodeObserved
from kecs.store.ecs import Store

RETRY_AFTER = 1.0
"""Seconds until nodes that could not be committed (a full disk) are tried again."""

_log = logging.getLogger(__name__)


async def follow_nodes(store: Store, runtime: Exposes) -> None:
    """Commit the nodes whenever they change, for ever."""
    async for nodes in runtime.nodes():
        while True:
            try:
                await store.transact(partial(put_nodes, nodes=nodes))
                break
            except KecsError as error:
                _log.error("the nodes could not be committed: %s", error.message)
                await asyncio.sleep(RETRY_AFTER)


def put_nodes(tx: Tx, nodes: Sequence[NodeObserved]) -> None:
    """Make the rows exactly `nodes`."""
    names = {node.name for node in nodes}
    for row in tx.scan(Node):
        if row.name not in names:
            tx.delete(row)
    for node in nodes:
        tx.put(Node(name=node.name, addresses=node.addresses, ready=node.ready))
