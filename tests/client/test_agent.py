"""The synchronous client of the agent, against a socket that answers by script."""

from __future__ import annotations

import json
import socket

import pytest
from tests.client.fakes import Script, row

from kecs.client import agent, rpc_types
from kecs.client.agent import AgentClient, NotRunning, WentAway
from kecs.errors import ExitCode, KecsError


def answering(*answers, cut: bool = False):
    """Answer each line by the next of `answers`: a dict (its id is filled in) or raw bytes."""
    left = list(answers)

    def answer(connection: socket.socket) -> None:
        for line in connection.makefile("rb"):
            if not left:
                return
            reply = left.pop(0)
            if isinstance(reply, dict):
                reply = json.dumps({"jsonrpc": "2.0", "id": json.loads(line)["id"]} | reply).encode() + b"\n"
            for at in range(0, len(reply), 7):  # read in pieces
                connection.sendall(reply[at : at + 7])
            if cut and not left:
                return

    return answer


def test_a_result_is_returned_as_plain_json(home):
    with (
        Script(home.paths.agent_socket, answering({"result": {"forwards": [1]}})),
        AgentClient(home.paths) as one,
    ):
        assert one.ask("forward.list") == {"forwards": [1]}


def test_a_typed_call_returns_the_reply_of_the_table(home):
    answer = {"version": "1", "pid": 7, "instance": "default", "instanceId": "00"}
    with Script(home.paths.agent_socket, answering({"result": answer})), AgentClient(home.paths) as one:
        assert one.hello() == rpc_types.Hello(version="1", pid=7, instance="default", instance_id="00")


def test_a_reply_of_another_shape_is_an_error_that_names_the_method(home):
    with (
        Script(home.paths.agent_socket, answering({"result": {}})),
        AgentClient(home.paths) as one,
        pytest.raises(KecsError, match=r"`agent\.hello`") as caught,
    ):
        one.hello()
    assert "agent restart" in caught.value.hint


def test_several_calls_are_answered_in_the_order_they_were_asked(home):
    def backwards(connection: socket.socket) -> None:
        lines = connection.makefile("rb")
        asked = [json.loads(lines.readline()) for _ in range(2)]
        connection.sendall(b'{"jsonrpc": "2.0", "method": "forward.event", "params": {}}\n')
        for one in reversed(asked):
            connection.sendall(json.dumps({"id": one["id"], "result": one["method"]}).encode() + b"\n")

    with Script(home.paths.agent_socket, backwards), AgentClient(home.paths) as one:
        assert one.ask_all([("first", {}), ("second", {})]) == ["first", "second"]


def test_an_error_keeps_its_words_hint_and_exit_code(home):
    error = {"code": rpc_types.ERROR_CODE, "message": "no", "data": {"hint": "so", "exitCode": 4}}
    with (
        Script(home.paths.agent_socket, answering({"error": error})),
        AgentClient(home.paths) as one,
        pytest.raises(KecsError) as caught,
    ):
        one.ask("forward.start")

    assert (caught.value.message, caught.value.hint, caught.value.exit_code) == (
        "no",
        "so",
        ExitCode.CONFLICT,
    )


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        ({"error": {"code": -32601, "message": "no such method"}}, "no such method"),
        ({"error": 7}, "without a message"),
        (b"what?\n", "not JSON"),
        (b"[1]\n", "not a JSON object"),
        (
            b'{"jsonrpc": "2.0", "id": null, "error": {"code": -32700, "message": "parse error"}}\n',
            "parse error",
        ),
    ],
)
def test_what_cannot_be_understood_says_so_and_how_to_replace_the_agent(home, answer, says):
    with (
        Script(home.paths.agent_socket, answering(answer)),
        AgentClient(home.paths) as one,
        pytest.raises(KecsError, match=says) as caught,
    ):
        one.ask("forward.list")

    assert "kecs port-forward agent restart" in caught.value.hint
    assert caught.value.exit_code == ExitCode.FAILED


def test_nobody_listening_is_not_running(home):
    with pytest.raises(NotRunning) as caught, AgentClient(home.paths) as one:
        one.ask("agent.hello")
    assert caught.value.exit_code == ExitCode.UNREACHABLE


def test_a_stale_socket_file_is_not_running(home):
    home.make_folders()
    with socket.socket(socket.AF_UNIX) as gone:
        gone.bind(str(home.paths.agent_socket))
    with pytest.raises(NotRunning), AgentClient(home.paths) as one:
        one.ask("agent.hello")


def test_an_end_before_the_answer_is_went_away(home):
    with (
        Script(home.paths.agent_socket, lambda c: c.recv(100)),
        AgentClient(home.paths) as one,
        pytest.raises(WentAway),
    ):
        one.ask("agent.hello")


def test_a_shutdown_that_is_not_answered_is_no_error(home):
    with Script(home.paths.agent_socket, lambda c: c.recv(100)), AgentClient(home.paths) as one:
        one.shutdown()


def test_an_agent_that_does_not_answer_is_named_with_its_pid_and_log(home):
    home.make_folders()
    home.paths.agent_pid.write_text("4711")

    def silent(connection: socket.socket) -> None:
        while connection.recv(100):
            pass

    with (
        Script(home.paths.agent_socket, silent),
        AgentClient(home.paths, timeout=0.05) as one,
        pytest.raises(KecsError, match=r"pid 4711\) does not answer") as caught,
    ):
        one.ask("agent.hello")

    assert caught.value.exit_code == ExitCode.UNREACHABLE
    assert str(home.paths.agent_log) in caught.value.hint


def test_a_watch_yields_the_row_and_then_events(home):
    event = {"type": "opened", "time": 1.0, "forward": "prod-web", "number": 1}
    messages = {"id": 1, "result": row()}, {"method": "forward.event", "params": event}
    reply = b"".join(json.dumps({"jsonrpc": "2.0"} | one).encode() + b"\n" for one in messages)
    with Script(home.paths.agent_socket, answering(reply, cut=True)), AgentClient(home.paths) as one:
        events = one.watch("prod-web")

        assert next(events).local_port == 20000
        assert next(events).number == 1
        with pytest.raises(WentAway):
            next(events)


def test_the_number_of_an_error_is_that_of_the_table():
    assert agent.KECS_ERROR == rpc_types.ERROR_CODE


def test_is_up_tells_a_listener_from_a_file(home):
    home.make_folders()
    path = str(home.paths.agent_socket)
    assert not agent.is_up(path)
    with Script(home.paths.agent_socket, lambda _c: None):
        assert agent.is_up(path)
    assert not agent.is_up(path)
