"""Files of forwards on the real relay loop: what is started, changed, kept and stopped, and what waits."""

from __future__ import annotations

import asyncio
import time

import pytest
from tests.agent.scripted import refuses
from tests.agent.shapes import A, B, lone, port, service, snapshot, task, wanted
from tests.sockets import free_port

from kecs import files
from kecs.agent import state
from kecs.client import rpc_types as rpc
from kecs.errors import KecsError
from kecs.forward.spec import AutoSpec, ForwardSpec, Retry, Target

FILE = "/x/port-forward.yaml"
OTHER = "/y/port-forward.yaml"


def named(name="web", text="prod/web", kind="service", *, target_port=80, **members):
    return wanted(text, kind, name=name, target_port=target_port, **members)


def tagged(name="debug", tags=None, *, cluster="prod", target_port=80, **members):
    target = Target(type="task", cluster=cluster, tags=tags or {"env": "dev"})
    return ForwardSpec(target=target, name=name, target_port=target_port, **members)


async def apply(manager, *specs, owner=FILE, **members):
    return await manager.applier.apply(rpc.ApplyRequest(owner=owner, forwards=list(specs), **members))


async def down(manager, owner=FILE):
    return await manager.applier.down(rpc.DownRequest(owner=owner))


def signs(reply):
    return [(step.sign, step.name) for step in reply.steps]


def saved(stage):
    return {one.name: one for one in state.load(stage.paths)[0].forwards}


def test_a_file_is_started_and_a_second_time_all_is_kept_without_a_write(play, monkeypatch):
    async def scene(stage, manager):
        specs = [named(local_port=free_port()), named("api", "prod/api", local_port=free_port())]
        first = await apply(manager, *specs)
        assert signs(first) == [("+", "web"), ("+", "api")]
        assert [(step.forward.state, step.forward.owner) for step in first.steps] == [
            ("ACTIVE", FILE),
            ("WAITING", FILE),
        ]
        assert first.steps[1].forward.reason == "service prod/api does not exist"
        assert [refuses(spec.local_port) for spec in specs] == [False, False]

        def fail(path, document):
            raise KecsError("it was written again")

        monkeypatch.setattr(files, "write_yaml", fail)
        again = await apply(manager, *specs)
        assert signs(again) == [("=", "web"), ("=", "api")]
        assert [step.forward.id for step in again.steps] == [step.forward.id for step in first.steps]

    play(scene)


def test_what_does_not_exist_is_waited_for_and_served_when_it_is_there(play):
    async def scene(stage, manager):
        await apply(manager, named("api", "prod/api"), tagged(), named("one", "prod/cccccccc", "task"))
        rows = {row.name: row for row in (await manager.rows()).forwards}
        assert {name: (row.state, row.reason) for name, row in rows.items()} == {
            "api": ("WAITING", "service prod/api does not exist"),
            "debug": ("WAITING", "no task with env=dev in the cluster prod exists"),
            "one": ("WAITING", "task cccccccc does not exist"),
        }
        stage.hear(
            snapshot(
                2,
                service(task(A, port(80, 29001)), name="api"),
                lone(task(B, port(80, 29002), env="dev")),
                lone(task("c" * 32, port(80, 29003))),
            ),
        )
        rows = {row.name: row for row in (await manager.rows()).forwards}
        assert {name: row.state for name, row in rows.items()} == dict.fromkeys(rows, "ACTIVE")
        assert (rows["debug"].chosen.task_id, rows["debug"].matched) == (B, 1)
        assert rows["one"].task_id == "c" * 32

    play(scene)


def test_a_task_by_its_whole_id_that_is_not_there_has_ended(play):
    async def scene(stage, manager):
        (step,) = (await apply(manager, named("one", f"prod/{'c' * 32}", "task"))).steps
        assert (step.forward.state, step.forward.reason) == ("ENDED", "task cccccccc is gone")

    play(scene)


class Names:
    """The port of all names, as far as files open it."""

    def __init__(self, manager):
        self.manager = manager
        self.error = None

    @property
    def port(self):
        kept = self.manager.names_entry
        return kept.port if kept is not None and kept.owners else None

    def open(self, owner):
        if self.error is not None:
            raise self.error
        self.manager.keep_names(state.NamesEntry(port=20777, owners=[owner]))
        return self.port

    def close(self, owner):
        self.manager.keep_names(state.NamesEntry(port=20777))
        return self.port


def test_a_file_opens_the_port_of_all_names_and_closes_it(play):
    async def scene(stage, manager):
        names = manager.applier.names = Names(manager)
        assert (await apply(manager, named(), names=True)).names_port == 20777
        assert (await apply(manager, named())).names_port is None
        await apply(manager, named(), names=True)
        await down(manager)
        assert names.port is None
        assert state.load(stage.paths)[0].names == state.NamesEntry(port=20777), "the port is kept"

        names.error = KecsError("port 20777 is taken")
        reply = await apply(manager, named(), names=True)
        assert (signs(reply), reply.names_port) == ([("+", "web")], None)
        assert reply.warnings == ["names are not served: port 20777 is taken"]

    play(scene)


def test_a_change_keeps_the_listener_and_the_id_unless_the_port_moves(play):
    async def scene(stage, manager):
        first, second = free_port(), free_port()
        (before,) = (await apply(manager, named(local_port=first))).steps
        _, writer = await asyncio.open_connection("127.0.0.1", first)
        stage.line = snapshot(2, service(task(A, port(81, 29009, name="admin"))))

        (changed,) = (await apply(manager, named(local_port=first, target_port="admin"))).steps
        assert (changed.sign, changed.changes) == ("~", ["targetPort 80 -> admin"])
        assert changed.forward.id == before.forward.id
        assert (changed.forward.state, changed.forward.target_port) == ("ACTIVE", "admin")

        (moved,) = (await apply(manager, named(local_port=second, target_port="admin"))).steps
        assert (moved.sign, moved.changes) == ("~", [f"localPort {first} -> {second}"])
        assert (moved.forward.id, moved.forward.state) == (before.forward.id, "ACTIVE")
        assert (refuses(first), refuses(second)) == (True, False)
        assert saved(stage)["web"].local_port == second
        writer.close()

    play(scene)


def test_two_forwards_exchange_their_ports(play):
    async def scene(stage, manager):
        one, two = free_port(), free_port()
        await apply(manager, named("a", local_port=one), named("b", "prod/api", local_port=two))
        reply = await apply(manager, named("a", local_port=two), named("b", "prod/api", local_port=one))
        assert signs(reply) == [("~", "a"), ("~", "b")]
        assert [(step.forward.local_port, step.forward.state) for step in reply.steps] == [
            (two, "ACTIVE"),
            (one, "WAITING"),
        ]
        assert [refuses(one), refuses(two)] == [False, False]

    play(scene)


def test_an_address_that_contains_the_one_before_is_taken_on_the_same_port(play):
    async def scene(stage, manager):
        one = free_port()
        await apply(manager, named(local_port=one))
        for address in (["0.0.0.0"], ["127.0.0.1"]):
            reply = await apply(manager, named(local_port=one, address=address))
            assert signs(reply) == [("~", "web")]
            assert (reply.steps[0].forward.state, reply.steps[0].forward.address) == ("ACTIVE", address)
        with pytest.raises(KecsError, match="belongs to the forward `web`"):
            await stage.start(wanted(local_port=one, address=["0.0.0.0"]))

    play(scene)


def test_forwards_whose_ports_are_not_free_in_time_listen_later(play, monkeypatch):
    async def scene(stage, manager):
        one, two = free_port(), free_port()
        await apply(manager, named("a", local_port=one), named("b", "prod/api", local_port=two))
        stats = stage.relay.stats

        async def silent():
            await stats()
            raise KecsError("the relay loop did not answer")

        monkeypatch.setattr(stage.relay, "stats", silent)
        with pytest.raises(KecsError, match="did not answer"):
            await apply(manager, named("a", local_port=two), named("b", "prod/api", local_port=one))
        monkeypatch.undo()
        states = {row.name: (row.local_port, row.state) for row in (await manager.rows()).forwards}
        assert states == {"a": (two, "ACTIVE"), "b": (one, "WAITING")}

    play(scene)


def test_what_the_file_names_no_longer_is_stopped_and_its_port_is_free_for_another_of_it(play):
    async def scene(stage, manager):
        one = free_port()
        await apply(manager, named("a", local_port=one))
        reply = await apply(manager, named("b", local_port=one))
        assert signs(reply) == [("+", "b"), ("-", "a")]
        assert [step.forward.state for step in reply.steps] == ["ACTIVE", "ACTIVE"], "`-` as it was"
        assert [row.name for row in (await manager.rows()).forwards] == ["b"]
        assert (refuses(one), list(saved(stage))) == (False, ["b"])

    play(scene)


def test_forwards_of_others_are_never_touched_and_in_the_way_before_anything_changes(play):
    async def scene(stage, manager):
        by_hand, ours = free_port(), free_port()
        await stage.start(wanted(name="mine", local_port=by_hand))
        await apply(manager, named("other"), owner=OTHER)
        before = saved(stage)
        for spec, code, words in [
            (named("mine"), 4, "the name `mine` is taken by a forward that was started by hand"),
            (named("other"), 4, f"the name `other` is taken by a forward of `{OTHER}`"),
            (named("b", local_port=by_hand), 4, f"port {by_hand} of `b` belongs to the forward `mine`"),
        ]:
            with pytest.raises(KecsError, match=words) as caught:
                await apply(manager, named("a", local_port=ours), spec)
            assert caught.value.exit_code == code
        assert (saved(stage), refuses(ours)) == (before, True)
        assert signs(await apply(manager)) == []
        assert (await down(manager)).forwards == []
        assert saved(stage) == before

    play(scene)


def test_a_port_of_a_stranger_stops_everything(play):
    async def scene(stage, manager):
        taken, free = free_port(), free_port()
        stranger = await asyncio.start_server(lambda *_: None, "127.0.0.1", taken)
        with pytest.raises(KecsError, match=f"port {taken} on 127.0.0.1 is taken"):
            await apply(manager, named("a", local_port=free), named("b", local_port=taken))
        assert (saved(stage), manager.runners, refuses(free)) == ({}, {}, True)
        stranger.close()
        await stranger.wait_closed()

    play(scene)


def test_a_dry_run_says_the_same_and_does_nothing(play):
    async def scene(stage, manager):
        await apply(manager, named("a"), named("b", "prod/api"))
        before = saved(stage)
        reply = await apply(manager, named("a", route="direct"), named("c"), dry_run=True)
        assert signs(reply) == [("~", "a"), ("+", "c"), ("-", "b")]
        assert [step.forward and step.forward.name for step in reply.steps] == ["a", None, "b"]
        assert reply.steps[1].target == "prod/web:80"
        assert (saved(stage), len(manager.runners)) == (before, 2)

    play(scene)


def test_down_stops_exactly_what_the_file_defines(play):
    async def scene(stage, manager):
        await stage.start(wanted(name="mine"))
        await apply(manager, named("a"), named("b", "prod/api"))
        await apply(manager, named("c"), owner=OTHER)
        ports = [row.local_port for row in (await down(manager)).forwards]
        assert [refuses(one) for one in ports] == [True, True]
        assert list(saved(stage)) == ["mine", "c"]
        assert (await down(manager)).forwards == []

    play(scene)


def test_what_ended_with_its_task_is_started_anew_on_its_port(play):
    async def scene(stage, manager):
        spec = tagged(auto_reconnect=False, local_port=free_port())
        stage.line = snapshot(2, lone(task(A, port(80, 29001), env="dev")))
        (first,) = (await apply(manager, spec)).steps
        assert (first.forward.state, first.forward.task_id) == ("ACTIVE", A)
        newer = lone(task(B, port(80, 29002), env="dev", created_at=2.0))
        stage.hear(snapshot(3, lone(task(A, port(80, 29001), env="dev")), newer))
        assert (await manager.get("debug")).chosen.task_id == A, "it is pinned"
        stage.hear(snapshot(4, lone(task(A, status="STOPPED", reason="it broke", env="dev")), newer))
        ended = await manager.get("debug")
        assert (ended.state, ended.reason) == ("ENDED", "task aaaaaaaa is STOPPED: it broke")
        (again,) = (await apply(manager, spec)).steps
        assert again.sign == "~"
        assert (again.forward.state, again.forward.task_id) == ("ACTIVE", B)
        assert (again.forward.id, again.forward.local_port) == (first.forward.id, spec.local_port)
        assert saved(stage)["debug"].ended is None
        assert not refuses(spec.local_port)

    play(scene)


def test_the_pin_outlives_the_agent_and_a_change_of_something_else(play):
    async def scene(stage, manager):
        spec = named(auto_reconnect=False)
        await apply(manager, spec)
        await asyncio.sleep(0)
        assert saved(stage)["web"].task_id == A
        (step,) = (await apply(manager, named(auto_reconnect=False, hold_seconds=3.0))).steps
        assert (step.sign, step.forward.task_id) == ("~", A)
        assert saved(stage)["web"].task_id == A
        (step,) = (await apply(manager, named(hold_seconds=3.0))).steps
        assert (step.changes, step.forward.task_id) == (["autoReconnect false -> true"], None)

    play(scene)


def test_a_failed_forward_is_tried_again_by_each_apply(play):
    async def scene(stage, manager):
        spec = named(local_port=free_port(), retry=Retry(initial=3600.0, max=3600.0))
        (step,) = (await apply(manager, spec)).steps
        runner = manager.runners[step.forward.id]
        for wish, sign in [(spec, "="), (named(local_port=spec.local_port), "~")]:
            runner.leave_port(runner.entry, runner.addresses)
            await stage.relay.stats()
            stranger = await asyncio.start_server(lambda *_: None, "127.0.0.1", spec.local_port)
            runner.renew(None)
            stage.resolver.add(runner)
            assert (await manager.get("web")).state == "FAILED"
            stranger.close()
            await stranger.wait_closed()

            (step,) = (await apply(manager, wish)).steps
            assert (step.sign, step.forward.state) == (sign, "ACTIVE")

    play(scene)


def test_strict_refuses_several_tasks_and_lists_them(play):
    async def scene(stage, manager):
        two = [lone(task(one, port(80, 29001), env="dev", created_at=time.time() - 90)) for one in (A, B)]
        stage.line = snapshot(2, *two)
        with pytest.raises(
            KecsError, match=r"2 tasks have the tags env=dev.*aaaaaaaa \(90 s old\)"
        ) as caught:
            await apply(manager, named(), tagged(strict=True))
        assert (caught.value.exit_code, manager.runners) == (4, {})

    play(scene)


def test_a_wrong_spec_is_refused_whoever_read_the_file(play):
    async def scene(stage, manager):
        for spec, words in [
            (wanted(target_port=80), "has no `name`"),
            (wanted(name="a"), "has no `targetPort`"),
            (named(address=["nowhere"]), "no IP address"),
            (named(route="tunnel"), "no tunnels on the runtime `local`"),
        ]:
            with pytest.raises(KecsError, match=words):
                await apply(manager, named("good"), spec)
        assert manager.runners == {}

    play(scene)


def test_what_cannot_be_written_changes_nothing(play, monkeypatch):
    async def scene(stage, manager):
        one, two = free_port(), free_port()
        await apply(manager, named(local_port=one))
        before = saved(stage)

        def fail(path, document):
            raise KecsError("no space left")

        with monkeypatch.context() as patch:
            patch.setattr(files, "write_yaml", fail)
            with pytest.raises(KecsError, match="no space left"):
                await apply(manager, named(local_port=two), named("b", local_port=free_port()))
            with pytest.raises(KecsError, match="no space left"):
                await down(manager)
        assert (saved(stage), refuses(one), refuses(two)) == (before, False, True)
        assert [row.local_port for row in (await manager.rows()).forwards] == [one]

    play(scene)


def test_waiting_is_for_all_of_the_file(play):
    async def scene(stage, manager):
        with pytest.raises(KecsError, match=r"`api` is WAITING after 0\.01 s: service prod/api does"):
            await apply(manager, named(), named("api", "prod/api"), wait=0.01)
        assert len(manager.runners) == 2, "they stay"

    play(scene)


def test_two_hundred_forwards_are_applied_with_one_write_and_again_with_none(play, monkeypatch):
    """How long that takes is `benchmarks/forwards.py`'s to say."""

    async def scene(stage, manager):
        specs = [named(f"web-{number}", f"prod/web-{number}") for number in range(200)]
        writes = []
        save = state.save
        monkeypatch.setattr(state, "save", lambda *given: (writes.append(given), save(*given)))
        assert {sign for sign, _ in signs(await apply(manager, *specs))} == {"+"}
        assert len(writes) == 1
        assert {sign for sign, _ in signs(await apply(manager, *specs))} == {"="}
        assert len(writes) == 1

    play(scene)


# auto


def web(name="web", *tasks, **members):
    return service(*tasks, name=name, **members)


def test_auto_makes_a_forward_for_each_public_service_as_it_appears_and_keeps_its_port(play):
    async def scene(stage, manager):
        auto = AutoSpec(clusters=["prod"], hold_seconds=7.0)
        stage.line = snapshot(2, web(), web("private", public=False), web("far", cluster="other"))
        reply = await apply(manager, auto=auto)
        assert signs(reply) == [("+", "prod-web")]
        assert reply.steps[0].forward.auto

        dns = port(53, protocol="udp")
        api = web("api", task(A, port(80, 29001)), ports=[port(80), port(81, name="admin")])
        stage.hear(snapshot(3, web(), api, web("dns", ports=[dns])))
        await stage.settle()
        rows = {row.name: row for row in (await manager.rows()).forwards}
        assert set(rows) == {"prod-web", "prod-api", "prod-api-81", "prod-dns"}
        assert (rows["prod-dns"].protocol, rows["prod-dns"].target_port) == ("udp", 53)
        assert (rows["prod-api"].state, saved(stage)["prod-api"].hold_seconds) == ("ACTIVE", 7.0)

        stage.hear(snapshot(4, web()))
        await stage.settle()
        gone = await manager.get("prod-api")
        assert (gone.state, gone.local_port) == ("WAITING", rows["prod-api"].local_port)
        stage.hear(snapshot(5, web(), api))
        await stage.settle()
        back = await manager.get("prod-api")
        assert (back.id, back.state, back.local_port) == (gone.id, "ACTIVE", gone.local_port)
        assert len(manager.runners) == 4

        stage.line = snapshot(6, web(), api)
        assert {sign for sign, _ in signs(await apply(manager, auto=auto))} == {"="}
        assert len((await down(manager)).forwards) == 4
        stage.hear(snapshot(7, web("new")))
        await stage.settle()
        assert (manager.runners, state.load(stage.paths)[0].autos) == ({}, [])

    play(scene)


def test_a_forward_of_auto_makes_way_for_one_that_the_file_names(play):
    async def scene(stage, manager):
        auto = AutoSpec(clusters=["prod"])
        stage.line = snapshot(2, web(ports=[port(8080)]), web("api"))
        (_, made) = (await apply(manager, auto=auto)).steps
        held = made.forward.local_port
        reply = await apply(manager, named("mine", "prod/api", local_port=held), auto=auto)
        assert ("+", "mine") in signs(reply)
        assert ("-", "prod-web") in signs(reply), "it has the port that the file asks for"
        assert ("-", "prod-api") in signs(reply), "its service is named by the file"
        rows = {row.name: row.local_port for row in (await manager.rows()).forwards}
        assert set(rows) == {"mine", "prod-web"}
        assert rows["mine"] == held != rows["prod-web"]

    play(scene)


def test_a_forward_of_auto_keeps_a_number_that_the_file_asks_for_by_udp(play):
    async def scene(stage, manager):
        auto = AutoSpec(clusters=["prod"])
        stage.line = snapshot(2, web(), web("dns", ports=[port(53, protocol="udp")]))
        (_, made) = (await apply(manager, auto=auto)).steps
        held = made.forward.local_port
        mine = named("mine", "prod/dns", local_port=held, protocol="udp")
        reply = await apply(manager, mine, auto=auto)
        rows = {row.name: (row.local_port, row.protocol) for row in (await manager.rows()).forwards}
        assert rows == {"mine": (held, "udp"), "prod-web": (held, "tcp")}
        assert ("-", "prod-dns") in signs(reply), "its service is named by the file"

    play(scene)


def test_a_forward_of_auto_that_a_person_stops_comes_back_only_with_the_file(play):
    async def scene(stage, manager):
        auto = AutoSpec(clusters=["prod"])
        stage.line = snapshot(2, web(), web("api"))
        await apply(manager, auto=auto)
        await manager.stop(rpc.StopRequest(forwards=["prod-api"]))
        stage.hear(snapshot(3, web(), web("api"), web("new")))
        await stage.settle()
        assert {row.name for row in (await manager.rows()).forwards} == {"prod-web", "prod-new"}
        stage.line = snapshot(4, web(), web("api"), web("new"))
        assert ("+", "prod-api") in signs(await apply(manager, auto=auto))
        await manager.stop(rpc.StopRequest(all=True))
        stage.hear(snapshot(5, web("another")))
        await stage.settle()
        assert manager.runners == {}

    play(scene)


def test_stopping_all_ends_auto_that_has_made_nothing_yet(play):
    async def scene(stage, manager):
        stage.line = snapshot(2)
        await apply(manager, auto=AutoSpec(clusters=["prod"]))
        await manager.stop(rpc.StopRequest(all=True))
        stage.hear(snapshot(3, web()))
        await stage.settle()
        assert (manager.runners, state.load(stage.paths)[0].autos) == ({}, [])

    play(scene)
