"""What the containers listen on."""

from __future__ import annotations

import socket

import pytest
from tests.runtimes.world import SERVER, World, container, in_world, of, python, sh, web

PORT = 29920
ports = [{"container_port": 80, "host_port": PORT}]


@pytest.mark.parametrize(
    ("bound", "dialled"),
    [("0.0.0.0", "127.0.0.1"), ("127.0.0.1", "127.0.0.1"), ("127.0.0.7", "127.0.0.7")],
)
def test_the_address_to_dial(bound: str, dialled: str) -> None:
    """An address that stands for all is dialled on loopback."""

    @in_world
    async def scenario(world: World) -> None:
        spec = await world.run(web(PORT, bound))
        seen = await world.until(spec, lambda seen: seen.containers and of(seen, "web").listening)
        assert of(seen, "web").listening == [(dialled, PORT)]
        await world.stop(spec)

    scenario()


@in_world
async def test_ipv6_and_ipv4_side_by_side(world: World) -> None:
    """Both are told, IPv4 first."""
    code = """
import os, socket, time
port = int(os.environ["PORT"])
six = socket.create_server(("::", port), family=socket.AF_INET6)
four = socket.create_server(("127.0.0.1", port))
time.sleep(600)
"""
    spec = await world.run(container("web", python(code), ports=ports))
    seen = await world.until(spec, lambda seen: seen.containers and len(of(seen, "web").listening) == 2)

    assert of(seen, "web").listening == [("127.0.0.1", PORT), ("::1", PORT)]
    await world.stop(spec)


@in_world
async def test_a_listener_of_a_child_process_is_its_containers(world: World) -> None:
    """Which process of the container listens does not matter, and each container has its own."""
    words = " ".join(f"'{word}'" for word in python(SERVER))
    side_ports = [{"container_port": 81, "host_port": PORT + 1}]
    spec = await world.run(
        container("web", sh(f"{words}; true"), ports=ports),
        container("side", sh(f"{words}; true"), ports=side_ports),
    )
    seen = await world.until(spec, lambda seen: seen.containers and all(c.listening for c in seen.containers))

    assert of(seen, "web").listening == [("127.0.0.1", PORT)]
    assert of(seen, "side").listening == [("127.0.0.1", PORT + 1)]
    await world.stop(spec)


@in_world
async def test_a_port_that_nobody_mapped_is_told_too(world: World) -> None:
    """`explain` needs to know what a container listens on instead."""
    code = "import socket, time; s = socket.create_server(('127.0.0.1', 29925)); time.sleep(600)"
    spec = await world.run(container("web", python(code), ports=ports))
    seen = await world.until(spec, lambda seen: seen.containers and of(seen, "web").listening)

    assert of(seen, "web").listening == [("127.0.0.1", 29925)]
    await world.stop(spec)


@in_world
async def test_a_listener_that_is_closed_is_no_longer_told(world: World) -> None:
    """And told again when it is back, by whichever process."""
    code = """
import os, socket, time, sys
os.mkfifo("fifo")
for _ in range(2):
    with socket.create_server(("127.0.0.1", int(os.environ["PORT"]))):
        open("fifo").read()
    open("fifo").read()
"""
    spec = await world.run(container("web", python(code), ports=ports))
    await world.until(spec, lambda seen: seen.containers and of(seen, "web").listening)
    for expected in ([], [("127.0.0.1", PORT)]):
        (world.home / "fifo").write_text("go")
        await world.until(spec, lambda seen, expected=expected: of(seen, "web").listening == expected)
    await world.stop(spec)


@in_world
async def test_a_port_that_a_stranger_holds_is_named(world: World) -> None:
    """A task that dies before it listened says whose fault it may be."""
    with socket.create_server(("127.0.0.1", PORT)):
        last = await world.ended(await world.run(web(PORT)))
    assert last.port_taken == PORT
    assert of(last, "web").exit_code == 1

    last = await world.ended(await world.run(web(PORT, "not an address")))
    assert last.port_taken is None


@in_world
async def test_a_port_that_another_container_of_the_task_holds_is_not_a_strangers(world: World) -> None:
    """The task's own mistake is not blamed on the port."""
    code = "import socket, sys; socket.create_connection(('127.0.0.1', int(sys.argv[1]))); print('up')"
    health = {"command": ["CMD", *python(code, str(PORT))], "interval": 0.05}
    side = container("side", python(SERVER), environment={"PORT": str(PORT)}, health_check=health)
    spec = await world.run(side, web(PORT, depends_on=[{"container": "side", "condition": "HEALTHY"}]))
    last = await world.ended(spec)

    assert of(last, "web").exit_code == 1
    assert last.port_taken is None
