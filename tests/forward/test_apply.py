"""A file's plan: what it starts, changes, keeps and stops, what is in its way, and that it settles."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kecs.forward import apply
from kecs.forward.apply import Existing, auto_options
from kecs.forward.changes import changes
from kecs.forward.spec import AutoSpec, ForwardSpec, Notify, Probe, Retry, Target

FILE = "/work/port-forward.yaml"
REGION = "us-east-1"


def spec(name, local_port=None, *, service="web", cluster="prod", region=None, **members):
    target = Target(type="service", cluster=cluster, service=service, region=region)
    return ForwardSpec(
        target=target, name=name, local_port=local_port, target_port=members.pop("target_port", 80), **members
    )


def there(name, local_port, *, owner=FILE, auto=False, ended=None, **members):
    """A forward as it exists, with its region."""
    members.setdefault("region", REGION)
    return Existing(f"pf-{name}", spec(name, local_port, **members), owner, auto, ended)


def plan(wanted, existing=(), auto=None):
    return apply.plan(FILE, wanted, existing, region=REGION, auto=auto)


def signs(planned):
    assert planned.conflicts == ()
    return [f"{step.sign} {step.name}" for step in planned.steps]


def test_a_plan_follows_the_file_and_stops_last():
    existing = [there("old", 20001), there("kept", 20002), there("moved", 20003)]
    planned = plan([spec("moved", 20004), spec("new"), spec("kept", 20002)], existing)

    assert signs(planned) == ["~ moved", "+ new", "= kept", "- old"]
    assert [str(change) for change in planned.steps[0].changes] == ["localPort 20003 -> 20004"]
    assert [step.rebinds for step in planned.steps] == [True, True, False, False]
    assert not planned.settled


def test_what_the_file_leaves_open_stays_as_it_was_chosen():
    planned = plan([spec("a")], [there("a", 20007)])

    assert planned.settled
    assert planned.steps[0].spec.local_port == 20007
    assert planned.steps[0].spec.target.region == REGION


def test_a_prefix_of_the_tasks_id_is_that_task():
    def one(task, region=None):
        return ForwardSpec(
            target=Target(type="task", cluster="prod", task=task, region=region),
            name="a",
            local_port=20001,
            target_port=80,
        )

    existing = [Existing("pf-1", one("0123abcd" * 4, REGION), FILE)]
    assert plan([one("0123abcd")], existing).settled
    assert signs(plan([one("0123abce")], existing)) == ["~ a"]


def test_the_order_of_tags_and_addresses_is_no_change():
    def one(tags, address):
        target = Target(type="task", cluster="c", tags=tags, region=REGION)
        return ForwardSpec(target=target, name="a", local_port=20001, target_port=80, address=address)

    before = one({"A": "1", "B": "2"}, ["127.0.0.1", "127.0.0.2"])
    after = one({"B": "2", "A": "1"}, ["127.0.0.2", "127.0.0.1"])
    assert changes(before, after) == []


def test_one_that_ended_is_started_anew():
    planned = plan([spec("a", 20001)], [there("a", 20001, ended="task 0123abcd is gone")])

    assert signs(planned) == ["~ a"]
    assert str(planned.steps[0].changes[0]) == "ended task 0123abcd is gone -> started anew"
    assert planned.steps[0].rebinds


DIFFERENT = {
    "target": (spec("a", 1, service="api").target, "target service prod/web -> service prod/api"),
    "local_port": (8081, "localPort 1 -> 8081"),
    "target_port": ("http", "targetPort 80 -> http"),
    "address": (["127.0.0.1"], "address loopback -> 127.0.0.1"),
    "auto_reconnect": (False, "autoReconnect true -> false"),
    "route": ("direct", "route auto -> direct"),
    "hold_seconds": (0.5, "hold.seconds 30 -> 0.5"),
    "hold_connections": (2, "hold.connections 1024 -> 2"),
    "retry": (Retry(max=20), "retry.max 15 -> 20"),
    "probe": (Probe(), "probe none -> tcp every 5 s (timeout 2 s, failures 3)"),
    "notify": (Notify(command=["say", "it"]), "notify nobody -> command say it"),
    "protocol": ("udp", "protocol tcp -> udp"),
    "idle_seconds": (5.0, "idle 60 -> 5"),
    "strict": (True, "strict false -> true"),
    "publish": (18080, "publish none -> 18080"),
}


@pytest.mark.parametrize("member", ForwardSpec.__struct_fields__)
def test_each_member_that_differs_is_one_change_in_words(member):
    if member == "name":
        return
    value, words = DIFFERENT[member]
    before = spec("a", 1)

    (change,) = changes(before, msgspec.structs.replace(before, **{member: value}))
    assert str(change) == words


def test_udp_and_tcp_may_have_the_same_number():
    tcp, udp = spec("a", 20001), spec("b", 20001, protocol="udp")
    assert not plan([tcp, udp], []).conflicts
    assert not plan([udp], [Existing("pf-1", tcp, None)]).conflicts
    (conflict,) = plan([udp], [Existing("pf-1", msgspec.structs.replace(udp, name="c"), None)]).conflicts
    assert "port 20001 of `b` belongs to the forward `c`" in conflict.message


def test_another_protocol_needs_another_socket():
    planned = plan([spec("a", 20001, protocol="udp")], [there("a", 20001)])
    assert planned.steps[0].rebinds
    assert [str(change) for change in planned.steps[0].changes] == ["protocol tcp -> udp"]


def test_the_options_of_auto_are_taken_as_far_as_the_protocol_has_them():
    auto = AutoSpec(clusters=["prod"], hold_seconds=5.0, hold_connections=9, idle_seconds=7.0, probe=Probe())
    tcp, udp = (auto_options(spec("a", 1, protocol=each), auto) for each in ("tcp", "udp"))
    assert (tcp.hold_seconds, tcp.hold_connections, tcp.idle_seconds, tcp.probe) == (5.0, 9, 60.0, Probe())
    assert (udp.hold_seconds, udp.hold_connections, udp.idle_seconds, udp.probe) == (30.0, 1024, 7.0, None)


@pytest.mark.parametrize("member", Retry.__struct_fields__)
def test_each_number_of_a_retry_is_a_change(member):
    value = getattr(Retry(), member) + 1e-9 if member != "attempts" else 1
    retry = msgspec.structs.replace(Retry(), **{member: value})

    (change,) = changes(spec("a", 1), spec("a", 1, retry=retry))
    assert change.key == f"retry.{member}"


@pytest.mark.parametrize(
    "other",
    [there("a", 20001, owner=None), there("a", 20001, owner="/x"), there("a", 1, owner=None, ended="gone")],
)
def test_a_name_of_another_is_a_conflict(other):
    (conflict,) = plan([spec("a")], [other]).conflicts

    assert "the name `a` is taken" in conflict.message
    assert "kecs port-forward stop a" in conflict.hint


@pytest.mark.parametrize(
    ("other", "address", "collides"),
    [
        (there("b", 8080, owner=None), [], True),
        (there("b", 8080, owner="/x"), ["0.0.0.0"], True),
        (there("b", 8080, owner="/x"), ["127.0.0.2"], False),
        (there("b", 8080, owner="/x", address=["::"]), ["127.0.0.2"], True),
        (there("b", 8080, owner=None, ended="gone"), [], False),
        (there("b", 8081, owner=None), [], False),
    ],
)
def test_a_port_of_another_is_a_conflict_where_the_addresses_meet(other, address, collides):
    conflicts = plan([spec("a", 8080, address=address)], [other]).conflicts

    assert [("port 8080 of `a` belongs to the forward `b`" in one.message) for one in conflicts] == (
        [True] * collides
    )


def test_all_conflicts_are_told_and_name_who_is_in_the_way():
    existing = [there("a", 20001, owner=None), there("b", 8080, owner="/x.yaml")]
    first, second = plan([spec("a"), spec("c", 8080)], existing).conflicts

    assert "that was started by hand" in first.message
    assert "of `/x.yaml`" in second.message


def test_two_forwards_may_exchange_their_ports():
    planned = plan([spec("a", 2), spec("b", 1)], [there("a", 1), there("b", 2)])

    assert signs(planned) == ["~ a", "~ b"]


def test_a_port_that_is_freed_by_the_same_plan_is_free():
    assert signs(plan([spec("new", 1)], [there("old", 1)])) == ["+ new", "- old"]


@pytest.mark.parametrize("wanted", [[spec("a", 1), spec("b", 1)], [spec("a", 1), spec("a", 2)]])
def test_a_request_that_is_at_odds_with_itself_is_a_conflict(wanted):
    (conflict,) = plan(wanted).conflicts

    assert "of the same file" in conflict.message


def test_a_port_that_was_chosen_for_a_forward_of_the_file_is_not_given_to_another():
    (conflict,) = plan([spec("a"), spec("b", 20001)], [there("a", 20001)]).conflicts

    assert "port 20001 of `b` belongs to the forward `a`" in conflict.message


def test_forwards_of_auto_stay_while_the_file_wants_them():
    existing = [there("prod-web", 20001, auto=True), there("dev-web", 20002, auto=True, cluster="dev")]

    assert signs(plan([], existing, AutoSpec(clusters=["prod", "dev"]))) == ["= prod-web", "= dev-web"]
    assert signs(plan([], existing, AutoSpec(clusters=["dev"]))) == ["= dev-web", "- prod-web"]
    assert signs(plan([], existing)) == ["- prod-web", "- dev-web"]


def test_forwards_of_auto_take_its_options_and_can_become_lines_of_the_file():
    existing = [there("prod-web", 20001, auto=True)]
    auto = AutoSpec(clusters=["prod"], hold_seconds=1)
    (step,) = plan([], existing, auto).steps
    assert [str(change) for change in step.changes] == ["hold.seconds 30 -> 1"]
    assert step.auto

    (step,) = plan([spec("prod-web", 20001)], existing, auto).steps
    assert [str(change) for change in step.changes] == ["auto true -> false"]
    assert not step.auto


# Random histories


def carry_out(planned, existing, owner):
    """What the agent does: the forwards after the plan."""
    by_id = {one.id: one for one in existing}
    for step in planned.steps:
        if step.existing is not None:
            del by_id[step.existing.id]
    used = {one.spec.local_port for one in by_id.values()} | {step.spec.local_port for step in planned.steps}
    free = iter(port for port in range(30000, 31000) if port not in used)
    for step in planned.steps:
        if step.sign == "-":
            continue
        made = step.spec
        if made.local_port is None:
            made = msgspec.structs.replace(made, local_port=next(free))
        identity = step.existing.id if step.existing else f"pf-{owner}-{step.name}"
        ended = step.existing.ended if step.existing and step.sign == "=" else None
        by_id[identity] = Existing(identity, made, owner, step.auto, ended)
    return list(by_id.values())


SPECS = st.builds(
    spec,
    st.sampled_from(["a", "b", "c", "d"]),
    st.sampled_from([None, 1, 2, 3]),
    service=st.sampled_from(["web", "api"]),
    cluster=st.sampled_from(["prod", "dev"]),
    region=st.sampled_from([None, REGION, "eu-west-1"]),
    address=st.sampled_from([[], ["127.0.0.1"], ["0.0.0.0"], ["127.0.0.2", "::1"]]),
    target_port=st.sampled_from([80, "http"]),
    hold_seconds=st.sampled_from([0, 30.0]),
    retry=st.builds(Retry, max=st.sampled_from([1, 15.0])),
    probe=st.sampled_from([None, Probe(), Probe(type="http")]),
    notify=st.sampled_from([None, Notify(), Notify(desktop=True)]),
    auto_reconnect=st.booleans(),
)
AUTOS = st.sampled_from([None, AutoSpec(clusters=["prod"]), AutoSpec(clusters=["dev"], route="direct")])
OWNERS = st.sampled_from(["/one", "/two"])
STEPS = st.one_of(
    st.tuples(st.just("apply"), OWNERS, st.lists(SPECS, max_size=4, unique_by=lambda one: one.name), AUTOS),
    st.tuples(st.just("hand"), SPECS),
    st.tuples(st.just("end"), st.integers(0, 20)),
    st.tuples(st.just("appear"), OWNERS, st.integers(0, 3)),
)


@given(st.lists(STEPS, max_size=25))
def test_every_history_settles_and_nobody_elses_forward_is_touched(history):
    """An apply that is carried out leaves nothing to do; a refused one, and the others' forwards, stay."""
    existing = []
    for number, (kind, *arguments) in enumerate(history):
        if kind == "hand":
            one = arguments[0]
            port = one.local_port or 40000 + number
            if all(port != other.spec.local_port and one.name != other.name for other in existing):
                target = msgspec.structs.replace(one.target, region=one.target.region or REGION)
                made = msgspec.structs.replace(one, local_port=port, target=target)
                existing.append(Existing(f"pf-{number}", made))
        elif kind == "end" and existing:
            at = arguments[0] % len(existing)
            one = existing[at]
            existing[at] = Existing(one.id, one.spec, one.owner, one.auto, "its task is gone")
        elif kind == "appear":
            owner, which = arguments
            name = f"auto{which}"
            if all(name != other.name for other in existing):
                found = there(name, 41000 + which, owner=owner, auto=True)
                existing.append(Existing(f"pf-{owner}-{name}", found.spec, owner, True))
        elif kind == "apply":
            owner, wanted, auto = arguments
            planned = apply.plan(owner, wanted, existing, region=REGION, auto=auto)
            others = [one for one in existing if one.owner != owner]
            assert all(step.existing is None or step.existing.owner == owner for step in planned.steps)
            if planned.conflicts:
                continue
            existing = carry_out(planned, existing, owner)
            assert [one for one in existing if one.owner != owner] == others
            assert len({one.name for one in existing}) == len(existing)
            assert {one.name for one in existing if one.owner == owner and not one.auto} == {
                one.name for one in wanted
            }
            again = apply.plan(owner, wanted, existing, region=REGION, auto=auto)
            assert again.settled, [str(change) for step in again.steps for change in step.changes]
    for owner in ("/one", "/two"):
        existing = carry_out(apply.plan(owner, [], existing, region=REGION), existing, owner)
    assert all(one.owner is None for one in existing)


@pytest.mark.parametrize(
    ("wanted", "other", "says"),
    [
        (spec("a", publish=18080), there("b", 1, owner=None, publish=18080), "18080 of `a` belongs to"),
        (
            spec("a", publish=18080),
            there("b", 1, owner="/x", ended="gone", publish=18080),
            "18080 of `a` belongs to the forward `b` of `/x`",
        ),
        (spec("a", publish=18080), there("b", 18080, owner=None), "18080 of `a` belongs to"),
        (spec("a", 18080), there("b", 1, owner=None, publish=18080), "18080 of `a` belongs to"),
        (spec("a", publish=20007), there("a", 20007), "20007 of `a` is its local port"),
    ],
)
def test_a_port_that_docker_holds_or_shall_hold_is_in_the_way(wanted, other, says):
    (conflict,) = plan([wanted], [other]).conflicts

    assert says in conflict.message
    assert "`publish`" in conflict.hint or "`localPort`" in conflict.hint


def test_published_ports_change_hands_within_a_file():
    existing = [there("a", 20001, publish=18080), there("b", 20002, publish=18081)]
    planned = plan([spec("a", publish=18081), spec("b", publish=18080)], existing)

    assert signs(planned) == ["~ a", "~ b"]
    assert not any(step.rebinds for step in planned.steps), "the listener stays"


def test_one_that_ended_does_not_listen_where_docker_shall():
    assert plan([spec("a", publish=18080)], [there("b", 18080, owner=None, ended="gone")]).conflicts == ()
