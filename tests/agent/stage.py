"""A manager with the real relay loop and without a control plane: what its shell tests play on."""

from __future__ import annotations

import asyncio

from tests.agent.shapes import A, B, lone, port, service, snapshot, task

from kecs.agent import state
from kecs.agent.manager import Manager
from kecs.agent.relay import Relay
from kecs.agent.resolver import Resolver
from kecs.client import instance as instances
from kecs.client import rpc_types as rpc
from kecs.net.messages import Stop


class Stage:
    """A manager with the real relay loop; `line` is what the control plane answers."""

    def __init__(self, paths):
        self.paths = paths
        self.relay = Relay()
        self.line = snapshot(1, service(task(A, port(80, 29001))), lone(task(B, port(80, 29002))))
        self.answered = asyncio.Event()
        self.answered.set()
        self.manager = Manager(paths, instances.require(paths), self.relay, self.ask)
        self.resolver = Resolver(paths, self.relay, self.manager.runners, None)
        self.manager.attach(self.resolver)
        self.relay.start()

    async def ask(self):
        await self.answered.wait()
        return self.line

    async def start(self, *specs, **options):
        return (await self.manager.start(rpc.StartRequest(forwards=list(specs), **options))).forwards

    def saved(self):
        return [one.local_port for one in state.load(self.paths)[0].forwards]

    async def close(self):
        await self.manager.end_tasks()
        self.relay.send(Stop())
        self.relay.join()
        self.manager.close()

    def hear(self, line):
        """Have the control plane say `line` on its stream."""
        self.resolver._heard(line, first=not self.resolver._connected)

    async def settle(self):
        """Let what a line set off come to its end."""
        await self.manager.applier.auto_maker.settle()
