"""The agent as a process, with a scripted control plane and real sockets: what a forward lives through."""

from __future__ import annotations

import os
import signal

import pytest
import yaml
from tests.agent.scripted import Client, refuses, until, who
from tests.agent.shapes import REGION, A, B, lone, port, service, task, wanted
from tests.sockets import free_port

from kecs.errors import KecsError

WEB = (REGION, "prod", "web", None)


def ready(home, *names):
    """A service whose tasks listen; `names` are their ids."""
    return service(*(task(name, port(80, home.task(name))) for name in names))


def draining(target, task_id):
    """The same service, with one task on its way out."""
    tasks = [
        task(one.task_id, port(80, one.ports[0].routes[0].port, draining=True), status="DEACTIVATING")
        if one.task_id == task_id
        else one
        for one in target.tasks
    ]
    return service(*tasks)


def test_a_forward_serves_at_once_on_both_loopback_addresses(running):
    running.controlplane.publish(ready(running, A))

    (row,) = running.start(wanted())

    assert (row.state, row.name, row.target_port, row.reason) == ("ACTIVE", "prod-web", 80, None)
    assert 20000 <= row.local_port < 30000
    assert row.address == ["127.0.0.1", "::1"]
    assert [who(row.local_port, host) for host in row.address] == [A, A]
    shown = until(lambda: (r := running.row()).connections.open == 0 and r, "both are closed")
    assert (shown.connections.total, shown.connections.held) == (2, 0)
    assert shown.bytes.in_ == 2 * len("hi\n")
    assert [(one.task_id, one.ready, one.open) for one in shown.endpoints] == [(A, True, 0)]


def test_a_planned_stop_is_seen_then_drained_and_no_connection_is_cut(running):
    """Contracts, 2: seen first; drained when the last connection to the task has ended."""
    target = ready(running, A, B)
    running.controlplane.publish(target)
    (row,) = running.start(wanted())
    first, second = Client(row.local_port), Client(row.local_port)
    by_name = {client.ask(): client for client in (first, second)}
    assert set(by_name) == {A, B}

    version = running.controlplane.publish(draining(target, A))
    running.controlplane.seen(version)
    assert [who(row.local_port) for _ in range(4)] == [B] * 4, "no new connection goes to A"
    assert by_name[A].ask() == A, "the open one goes on"
    assert ("drained", A) not in running.controlplane.posts
    by_name[A].close()

    until(lambda: ("drained", A) in running.controlplane.posts, "A is drained")
    posts = running.controlplane.posts
    assert posts.index(("seen", version)) < posts.index(("drained", A))
    by_name[B].close()


def test_a_draining_task_that_no_forward_has_is_drained_at_once(running):
    lonely = lone(task(B, port(80, running.task(B), draining=True), status="DEACTIVATING"))
    version = running.controlplane.publish(lonely)

    until(lambda: ("drained", B) in running.controlplane.posts, "B is drained")
    posts = running.controlplane.posts
    assert posts.index(("seen", version)) < posts.index(("drained", B))


def test_two_forwards_of_a_task_must_both_let_go(running):
    target = ready(running, A)
    running.controlplane.publish(target)
    by_service, by_task = running.start(wanted(), wanted(f"prod/{A}", "task"))
    clients = [Client(by_service.local_port), Client(by_task.local_port)]
    assert [client.ask() for client in clients] == [A, A]

    running.controlplane.seen(running.controlplane.publish(draining(target, A)))
    clients[0].close()
    until(lambda: running.row().connections.open == 0, "the service forward has let go")
    assert ("drained", A) not in running.controlplane.posts
    running.client.ask("forward.stop", {"forwards": [by_task.id]})
    until(lambda: ("drained", A) in running.controlplane.posts, "a forward that is stopped is out")
    clients[1].close()


def test_a_new_connection_waits_for_a_task_and_is_served(running):
    running.controlplane.publish(service(task(A, status="PENDING")))
    (row,) = running.start(wanted())
    assert (row.state, row.reason) == ("WAITING", "no task of prod/web is ready (1 PENDING)")

    with Client(row.local_port) as client:
        client.send("hi")
        until(lambda: running.row().connections.held == 1, "it is held")
        running.controlplane.publish(ready(running, A))
        assert client.read() == A
    assert running.state() == "ACTIVE"


def test_without_a_control_plane_it_serves_on_and_finds_it_again(running):
    running.controlplane.publish(ready(running, A))
    (row,) = running.start(wanted())
    running.desire("stopped")
    running.controlplane.kill()

    until(lambda: running.row().reason, "it knows of the loss")
    assert "control plane not reachable since" in running.row().reason
    assert running.state() == "ACTIVE"
    assert "not reachable" in running.client.status().controlplane
    assert who(row.local_port) == A
    running.controlplane.restart()
    until(lambda: running.client.status().controlplane == "connected", "it is back")
    version = running.controlplane.publish(ready(running, B))
    running.controlplane.seen(version)
    assert who(row.local_port) == B
    assert running.row().reason is None


def test_a_new_control_plane_hears_again_what_is_drained(running):
    target = ready(running, A, B)
    running.controlplane.publish(target)
    running.start(wanted())
    running.controlplane.publish(draining(target, A))
    until(lambda: ("drained", A) in running.controlplane.posts, "A is drained")
    running.desire("stopped")
    running.controlplane.kill()
    running.controlplane.restart()

    until(lambda: ("drained", A) in running.controlplane.posts, "said to the new one too")
    assert running.controlplane.posts[0] == ("seen", 0)


def test_after_a_kill_everything_is_back_on_the_same_ports_and_holds(running):
    """The listener is there before the first endpoints are; what connects meanwhile is served."""
    running.controlplane.publish(ready(running, A))
    rows = running.start(
        wanted(local_port=free_port()), wanted(local_port=free_port(), name="second", target_port="http")
    )
    running.desire("running")
    running.kill()
    running.controlplane.kill()
    running.controlplane.silent = True
    running.controlplane.start()

    running.launch()
    with Client(rows[0].local_port) as client:
        client.send("hi")
        until(lambda: running.row().connections.held == 1, "it is held")
        assert "has not told yet" in running.row().reason
        running.controlplane.silent = False
        running.desire("stopped")
        running.controlplane.kill()
        running.controlplane.restart()
        assert client.read() == A
    assert [(r.id, r.name, r.local_port, r.created_at) for r in running.rows()] == [
        (r.id, r.name, r.local_port, r.created_at) for r in rows
    ]


def test_a_task_forward_ends_with_its_task_and_stays_until_it_is_stopped(running):
    running.controlplane.publish(ready(running, A))
    (row,) = running.start(wanted("prod/aaaaaaaaa", "task", local_port=free_port()))
    assert (row.name, row.task_id, who(row.local_port)) == ("task-aaaaaaaa", A, A)

    running.controlplane.publish(service(task(A, status="STOPPED", reason="Task stopped by user")))
    until(lambda: running.state(row.name) == "ENDED", "it ended")
    assert running.row(row.name).reason == "task aaaaaaaa is STOPPED: Task stopped by user"
    until(lambda: refuses(row.local_port), "the listener is closed")
    until(lambda: "ended" in running.paths.forwards_config.read_text(), "kept as ended")
    running.kill()
    running.launch()
    assert (running.state(row.name), refuses(row.local_port)) == ("ENDED", True)
    running.client.ask("forward.stop", {"forwards": [row.name]})
    assert running.rows() == []


def test_a_deleted_service_is_waited_for(running):
    target = ready(running, A)
    running.controlplane.publish(target)
    (row,) = running.start(wanted())

    running.controlplane.publish(removed=[WEB])
    until(lambda: running.state() == "WAITING", "it waits")
    assert running.row().reason == "service prod/web does not exist"
    running.controlplane.publish(service(public=False))
    until(lambda: running.row().reason == "assignPublicIp is off for service prod/web", "it says why")
    running.controlplane.publish(target)
    until(lambda: running.state() == "ACTIVE", "it is back")
    assert who(row.local_port) == A


def test_a_start_asks_now_and_never_the_cache(running):
    """The stream is silent about the service; the answer to the question decides."""
    running.controlplane.publish(ready(running, A))
    until(lambda: running.controlplane.followers, "the agent follows")
    controlplane = running.controlplane
    before, controlplane._followers = controlplane._followers, []
    controlplane.publish(service(task(B, port(80, running.task(B))), name="api"))

    (row,) = running.start(wanted("prod/api"))

    assert (row.state, who(row.local_port)) == ("ACTIVE", B)
    controlplane._followers = before


def test_a_start_waits_for_a_control_plane_that_restarts(running):
    running.controlplane.publish(ready(running, A))
    running.desire("stopped")
    running.controlplane.kill()
    until(lambda: running.client.status().controlplane != "connected", "it is lost")
    client = running.client
    client._send(
        b'{"jsonrpc":"2.0","id":1,"method":"forward.start","params":'
        b'{"forwards":[{"target":{"type":"service","cluster":"prod","service":"web"}}]}}\n',
        1e9,
    )
    running.controlplane.restart()

    answer = client._receive(None)

    assert answer["result"]["forwards"][0]["forward"]["state"] == "ACTIVE"


def test_waiting_for_active(running):
    running.controlplane.publish(service())
    with pytest.raises(KecsError, match=r"`prod-web` is WAITING after 0\.1 s: no task of prod/web is ready"):
        running.start(wanted(), wait=0.1)
    assert running.state() == "WAITING", "it stays"

    client = running.client
    client.ask_all([("agent.hello", {})])
    client._send(
        b'{"jsonrpc":"2.0","id":9,"method":"forward.start","params":{"wait":10,'
        b'"forwards":[{"target":{"type":"service","cluster":"prod","service":"web"}}]}}\n',
        1e9,
    )
    running.controlplane.publish(ready(running, A))
    answer = client._receive(None)
    assert answer["result"]["forwards"][0]["forward"]["state"] == "ACTIVE"
    assert answer["result"]["forwards"][0]["created"] is False


def test_watching_a_forward(running):
    running.controlplane.publish(ready(running, A))
    (row,) = running.start(wanted())
    events = running.client.watch(row.name)
    assert next(events).id == row.id

    who(row.local_port)
    opened, ended = next(events), next(events)
    assert (opened.type, opened.number, opened.forward) == ("opened", 1, row.id)
    assert opened.peer.startswith("127.0.0.1:")
    assert (ended.type, ended.why, ended.received) == ("ended", "closed", 3)
    running.controlplane.publish(service())
    assert next(events).row.state == "WAITING"
    running.client.ask("forward.stop", {"all": True})
    assert next(events).row.state == "ENDED"


def test_the_log_of_a_forward_tells_its_life(running):
    running.controlplane.publish(ready(running, A))
    (row,) = running.start(wanted())
    running.controlplane.publish(service())
    until(lambda: running.state() == "WAITING", "it waits")
    running.client.ask("forward.stop", {"all": True})

    file = running.paths.forward_logs / "prod-web.log"
    lines = [yaml.safe_load(line) for line in file.read_text().splitlines()]
    assert [line["message"] for line in lines] == [
        f"started on port {row.local_port} for prod/web",
        "WAITING: the control plane has not told yet what it leads to",
        "task aaaaaaaa is ready",
        "ACTIVE",
        "task aaaaaaaa is gone",
        "WAITING: no task of prod/web is ready (it has none)",
        "ENDED: it was stopped",
        "stopped",
    ]
    assert file.stat().st_mode & 0o777 == 0o600


def test_a_refused_connect_is_the_last_error(running):
    running.controlplane.publish(service(task(A, port(80, 1))))
    (row,) = running.start(wanted())

    with Client(row.local_port) as client:
        client.send("hi")
        error = until(lambda: running.row().last_error, "it is told")
        assert "refused" in error.message.lower()
        running.controlplane.publish(ready(running, A))
        assert client.read() == A


def test_the_state_file_is_for_display(running):
    running.controlplane.publish(ready(running, A))
    (row,) = running.start(wanted())

    def shown():
        if not running.paths.forwards_state.exists():
            return None
        document = yaml.safe_load(running.paths.forwards_state.read_text())
        return [(one["id"], one["state"]) for one in document["forwards"]]

    until(lambda: shown() == [(row.id, "ACTIVE")], "it is written")
    assert running.paths.forwards_state.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_leaves_quietly(running, number):
    running.controlplane.publish(ready(running, A))
    (row,) = running.start(wanted(local_port=free_port()))
    os.kill(running.agent.pid, number)

    assert running.wait_for_exit() == 0
    assert refuses(row.local_port)
    assert not running.paths.agent_socket.exists()
    assert not running.paths.agent_pid.exists()
    running.launch()
    assert who(row.local_port) == A
