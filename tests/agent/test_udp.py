"""UDP forwards in the agent: ports of their own, the same after a restart, other targets, drains, the end."""

from __future__ import annotations

import asyncio
import contextlib
import socket

import pytest
from tests.agent.shapes import A, B, lone, port, service, snapshot, task, wanted
from tests.sockets import free_port

from kecs.agent import state
from kecs.client import rpc_types as rpc
from kecs.errors import KecsError
from kecs.net import listener
from kecs.net.messages import Drained


class Task:
    """An echo of UDP that stands for a task."""

    def __init__(self, name):
        self.name = name
        self.sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.sock.bind(("127.0.0.1", 0))
        self.sock.setblocking(False)
        self.number = self.sock.getsockname()[1]
        asyncio.get_running_loop().add_reader(self.sock, self._answer)

    def _answer(self):
        with contextlib.suppress(BlockingIOError):
            said, peer = self.sock.recvfrom(1 << 16)
            self.sock.sendto(self.name.encode() + b" heard " + said, peer)

    def port(self, **members):
        return port(53, self.number, protocol="udp", name="dns", **members)

    def close(self):
        asyncio.get_running_loop().remove_reader(self.sock)
        self.sock.close()


DNS = [port(53, protocol="udp", name="dns")]


def dns(*tasks, ports=DNS):
    return service(*tasks, name="dns", ports=ports)


@contextlib.contextmanager
def client(number):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setblocking(False)
        sock.connect(("127.0.0.1", number))
        yield sock


async def ask(sock, text=b"?"):
    sock.send(text)
    async with asyncio.timeout(10):
        return await asyncio.get_running_loop().sock_recv(sock, 1 << 16)


def test_a_udp_port_is_forwarded_as_any_other(play):
    async def scene(stage, manager):
        with contextlib.closing(Task("a")) as one:
            stage.line = snapshot(1, dns(task(A, one.port())))
            (begun,) = await stage.start(wanted("prod/dns"))
            row = begun.forward
            assert (row.protocol, row.target_port, row.state) == ("udp", 53, "ACTIVE")
            with client(row.local_port) as sock:
                assert await ask(sock) == b"a heard ?"
            row = await manager.get("prod-dns")
            assert (row.connections.open, row.connections.total) == (1, 1)
            assert (row.bytes.in_, row.bytes.out, row.route) == (1, 9, "direct")
            assert [each.open for each in row.endpoints] == [1]
            (again,) = await stage.start(wanted("prod/dns", target_port=53))
            assert (again.created, again.forward.id) == (False, row.id)

    play(scene)


def test_tcp_and_udp_of_one_number_have_one_number_here_too(play):
    async def scene(stage, manager):
        number = free_port()
        both = [port(number), port(number, protocol="udp")]
        stage.line = snapshot(1, dns(ports=both))
        tcp, udp = await stage.start(
            wanted("prod/dns", target_port=number, protocol="tcp"),
            wanted("prod/dns", target_port=number, protocol="udp"),
        )
        assert (tcp.forward.protocol, udp.forward.protocol) == ("tcp", "udp")
        assert tcp.forward.local_port == udp.forward.local_port == number
        assert [one.protocol for one in state.load(stage.paths)[0].forwards] == ["tcp", "udp"]

        given = free_port()
        await stage.start(wanted("prod/dns", target_port=number, protocol="udp", local_port=given, name="a"))
        await stage.start(wanted("prod/dns", target_port=number, protocol="tcp", local_port=given, name="b"))
        with pytest.raises(KecsError, match=f"port {given} belongs to the forward `a`"):
            await stage.start(
                wanted("prod/dns", target_port=number, protocol="udp", local_port=given, name="c")
            )

    play(scene)


def test_a_port_of_udp_that_is_taken_is_not_chosen_and_not_given(play):
    async def scene(stage, manager):
        number, sockets = listener.bind_chosen(["127.0.0.1"], range(23000, 24000), set(), udp=True)
        with sockets[0]:
            stage.line = snapshot(1, dns(ports=[port(number, protocol="udp")]))
            (begun,) = await stage.start(wanted("prod/dns"))
            assert begun.forward.local_port != number
            with pytest.raises(KecsError, match=f"UDP port {number} on 127.0.0.1 is taken by"):
                await stage.start(wanted("prod/dns", local_port=number, name="x"))

    play(scene)


def test_the_clients_of_a_task_that_drains_move_and_it_is_said_to_be_out(play):
    async def scene(stage, manager):
        with contextlib.closing(Task("a")) as one, contextlib.closing(Task("b")) as other:
            stage.line = snapshot(1, dns(task(A, one.port())))
            (begun,) = await stage.start(wanted("prod/dns"))
            drained = asyncio.get_running_loop().create_future()
            stage.relay.on(Drained, lambda said: drained.done() or drained.set_result(said))
            with client(begun.forward.local_port) as sock:
                assert await ask(sock) == b"a heard ?"
                stage.hear(snapshot(2, dns(task(A, one.port(draining=True)), task(B, other.port()))))
                async with asyncio.timeout(10):
                    assert await drained == Drained(begun.forward.id, A)
                assert await ask(sock) == b"b heard ?"
            row = await manager.get("prod-dns")
            assert (row.connections.open, row.connections.total, row.connections.dropped) == (1, 1, 0)

    play(scene)


def test_without_a_task_datagrams_are_dropped_and_the_row_says_so(play):
    async def scene(stage, manager):
        stage.line = snapshot(1, dns())
        (begun,) = await stage.start(wanted("prod/dns"))
        assert begun.forward.state == "WAITING"
        with client(begun.forward.local_port) as sock:
            sock.send(b"lost")
            async with asyncio.timeout(10):
                while not (await manager.get("prod-dns")).connections.dropped:
                    await asyncio.sleep(0.01)
            row = await manager.get("prod-dns")
            assert (row.connections.dropped, row.connections.total, row.connections.held) == (1, 0, 0)

    play(scene)


def test_it_ends_with_its_task(play):
    async def scene(stage, manager):
        with contextlib.closing(Task("a")) as one:
            stage.line = snapshot(1, lone(task(A, one.port()), ports=DNS))
            (begun,) = await stage.start(wanted(f"prod/{A}", "task"))
            with client(begun.forward.local_port) as sock:
                assert await ask(sock) == b"a heard ?"
            stage.hear(snapshot(2, lone(task(A, status="STOPPED", reason="killed"), ports=DNS)))
            row = await manager.get(begun.forward.id)
            assert (row.state, row.connections.open) == ("ENDED", 0)
            for sock in listener.bind(["127.0.0.1"], begun.forward.local_port, udp=True):
                sock.close()

    play(scene)


@pytest.mark.parametrize("first", ["tcp", "udp"])
def test_a_file_may_make_it_one_of_the_other_protocol(play, first):
    second = "udp" if first == "tcp" else "tcp"

    async def scene(stage, manager):
        stage.line = snapshot(1, dns(ports=[port(53), *DNS]))

        def spec(protocol, **more):
            return wanted("prod/dns", name="x", local_port=number, target_port=53, protocol=protocol, **more)

        number = free_port()
        for protocol in (first, second):
            request = rpc.ApplyRequest(owner="/f.yaml", forwards=[spec(protocol)])
            reply = await manager.applier.apply(request)
            assert reply.steps[0].forward.protocol == protocol
            assert reply.steps[0].forward.state == "WAITING"
        assert reply.steps[0].changes == [f"protocol {first} -> {second}"]
        assert reply.steps[0].target == "prod/dns:53" + ("/udp" if second == "udp" else "")
        for sock in listener.bind(["127.0.0.1"], number, udp=first == "udp"):
            sock.close()
        with pytest.raises(KecsError, match="is taken"):
            listener.bind(["127.0.0.1"], number, udp=second == "udp")

    play(scene)


def test_another_idle_time_leaves_its_socket_and_its_clients_alone(play):
    async def scene(stage, manager):
        with contextlib.closing(Task("a")) as one:
            stage.line = snapshot(1, dns(task(A, one.port())))
            specs = [
                wanted("prod/dns", name="x", target_port=53, protocol="udp", idle_seconds=idle)
                for idle in (60.0, 90.0)
            ]
            reply = await manager.applier.apply(rpc.ApplyRequest(owner="/f.yaml", forwards=specs[:1]))
            with client(reply.steps[0].forward.local_port) as sock:
                await ask(sock)
                reply = await manager.applier.apply(rpc.ApplyRequest(owner="/f.yaml", forwards=specs[1:]))
                assert reply.steps[0].changes == ["idle 60 -> 90"]
                await ask(sock)
            assert reply.steps[0].forward.connections.total == 1

    play(scene)


def test_it_comes_back_on_its_port(play):
    async def scene(stage, manager):
        with contextlib.closing(Task("a")) as one:
            stage.line = snapshot(1, dns(task(A, one.port())))
            (begun,) = await stage.start(wanted("prod/dns"))
            runner = manager.runners[begun.forward.id]
            entry = state.load(stage.paths)[0].forwards[0]
            assert (entry, entry.protocol) == (runner.entry, "udp")
            runner.leave_port(entry, runner.addresses)
            await stage.relay.stats()
            runner.renew(None)
            stage.hear(stage.line)
            with client(begun.forward.local_port) as sock:
                assert await ask(sock) == b"a heard ?"

    play(scene)
