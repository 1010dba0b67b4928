"""The order of containers in a Pod: a table of task definitions, and what cannot be kept."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kecs.ecs.pod_order import Member, OrderError, Placed, place


def one(name, *depends_on, essential=True):
    """`one("web", "db:HEALTHY")` waits for db to be healthy."""
    pairs = tuple(tuple(each.split(":")) for each in depends_on)
    return Member(name, essential, pairs)


def extra(name, *depends_on):
    return one(name, *depends_on, essential=False)


def placed(*members):
    return [f"{each.role} {each.name}{' gates' if each.gates else ''}" for each in place([*members])]


@pytest.mark.parametrize(
    ("members", "expected"),
    [
        ([one("web")], ["main web"]),
        ([one("web"), extra("log")], ["main web", "main log"]),
        ([one("web", "migrate:SUCCESS"), extra("migrate")], ["init migrate", "main web"]),
        ([one("web", "migrate:COMPLETE"), extra("migrate")], ["init migrate", "main web"]),
        ([one("web", "db:START"), one("db")], ["sidecar db", "main web"]),
        ([one("web", "db:HEALTHY"), one("db")], ["sidecar db gates", "main web"]),
        (
            [one("web", "db:HEALTHY", "migrate:SUCCESS"), extra("migrate", "db:HEALTHY"), one("db")],
            ["sidecar db gates", "init migrate", "main web"],
        ),
        (
            [one("web", "second:SUCCESS"), extra("second", "first:COMPLETE"), extra("first")],
            ["init first", "init second", "main web"],
        ),
        # An essential container that waits for nothing starts before what is waited for to end.
        (
            [one("web", "migrate:SUCCESS"), extra("migrate"), one("proxy"), extra("log")],
            ["sidecar proxy", "init migrate", "main web", "main log"],
        ),
        # … but not when the Pod would then end with what is not essential.
        (
            [one("web"), extra("report", "prepare:SUCCESS"), extra("prepare")],
            ["init prepare", "main web", "main report"],
        ),
    ],
)
def test_each_container_gets_its_place(members, expected):
    assert placed(*members) == expected


@pytest.mark.parametrize(
    ("members", "why"),
    [
        ([one("web", "log:START"), extra("log")], "container 'log' with the condition START"),
        ([one("web", "log:HEALTHY"), extra("log")], "container 'log' with the condition HEALTHY"),
        (
            [one("web", "log:SUCCESS"), one("b", "log:START"), extra("log")],
            "container 'log' with the condition START",
        ),
        ([one("db"), extra("seed", "db:START")], "none of these is essential"),
        ([one("web"), extra("a", "b:COMPLETE"), extra("b", "a:COMPLETE")], "wait for each other"),
    ],
)
def test_an_order_that_cannot_be_kept_is_refused(members, why):
    with pytest.raises(OrderError, match=why):
        place(members)


@st.composite
def definitions(draw):
    """Containers of which each waits for earlier ones only, by ECS's own rules."""
    members = []
    for number in range(draw(st.integers(1, 7))):
        depends_on = [
            (
                other.name,
                draw(st.sampled_from(("START", "HEALTHY") if other.essential else ("COMPLETE", "SUCCESS"))),
            )
            for other in members
            if draw(st.booleans())
        ]
        members.append(Member(f"c{number}", draw(st.booleans()), tuple(depends_on)))
    return draw(st.permutations(members))


@given(definitions())
def test_whatever_is_placed_starts_after_what_it_waits_for(members):
    try:
        result = place(members)
    except OrderError:
        return
    at = {each.name: number for number, each in enumerate(result)}
    roles = {each.name: each.role for each in result}
    assert sorted(at) == sorted(member.name for member in members)
    assert any(member.essential and roles[member.name] == "main" for member in members)
    for member in members:
        assert roles[member.name] != "sidecar" or member.essential
        for name, condition in member.depends_on:
            assert at[name] < at[member.name]
            assert roles[name] == ("init" if condition in ("COMPLETE", "SUCCESS") else "sidecar")


def test_a_place_says_whether_others_wait_for_its_health():
    assert place([one("web", "db:HEALTHY"), one("db")])[0] == Placed("db", "sidecar", gates=True)
