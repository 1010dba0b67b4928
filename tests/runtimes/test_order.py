"""`dependsOn` and health checks with real processes."""

from __future__ import annotations

import pytest
from tests.runtimes.world import World, container, in_world, is_alive, of, sh, until


def after(condition: str, name: str = "first") -> list[dict]:
    return [{"container": name, "condition": condition}]


def check(script: str, **members: object) -> dict:
    defaults = {"interval": 0.05, "timeout": 2.0, "retries": 2}
    return {"command": ["CMD-SHELL", script], **defaults, **members}


@pytest.mark.parametrize(("condition", "code"), [("COMPLETE", 9), ("SUCCESS", 0)])
def test_a_container_waits_for_the_end_of_another(condition: str, code: int) -> None:
    """COMPLETE waits for any end, SUCCESS for exit code 0."""

    @in_world
    async def scenario(world: World) -> None:
        first = container("first", sh(f"sleep 0.2; touch done; exit {code}"), essential=False)
        second = container("second", sh("ls done"), depends_on=after(condition))
        spec = await world.run(second, first)
        seen = await world.until(spec, lambda seen: seen.containers and of(seen, "first").pid)
        assert of(seen, "second").status == "PENDING"
        last = await world.ended(spec)

        assert (of(last, "first").exit_code, of(last, "second").exit_code) == (code, 0)
        assert await world.log(spec, "second") == b"done\n"

    scenario()


@in_world
async def test_an_unsuccessful_dependency_fails_the_task(world: World) -> None:
    """SUCCESS that cannot come any more: the dependent never starts, says why, and the task ends."""
    first = container("first", sh("exit 3"), essential=False)
    second = container("second", sh("exec sleep 600"), depends_on=after("SUCCESS"))
    last = await world.ended(await world.run(first, second))

    assert of(last, "second").started_at is None
    assert last.failure == of(last, "second").reason
    assert "[first] for target [second] as dependency did not exit successfully" in last.failure


@in_world
async def test_start_waits_for_the_start_only(world: World) -> None:
    """START is met by a container that runs, and is not by one that cannot start."""
    first = container("first", sh("exec sleep 600"))
    second = container("second", ["true"], depends_on=after("START"))
    last = await world.ended(await world.run(second, first))
    assert of(last, "first").started_at < of(last, "second").started_at

    broken = container("first", ["no-such-program"], essential=False)
    last = await world.ended(await world.run(second, broken))
    assert "as dependency stopped before START" in last.failure


@in_world
async def test_healthy_waits_for_the_health_check(world: World) -> None:
    """A dependent starts once the check has succeeded, and observations tell the health."""
    first = container("first", sh("exec sleep 600"), health_check=check("test -e well"))
    second = container("second", sh("exec sleep 600"), depends_on=after("HEALTHY"))
    spec = await world.run(first, second)
    seen = await world.until(spec, lambda seen: seen.containers and of(seen, "first").pid)
    assert (of(seen, "first").health, of(seen, "second").status) == ("UNKNOWN", "PENDING")
    seen = await world.until(spec, lambda seen: of(seen, "first").health == "UNHEALTHY")
    assert of(seen, "second").status == "PENDING"
    (world.home / "well").touch()
    seen = await world.running(spec)
    assert (of(seen, "first").health, of(seen, "second").health) == ("HEALTHY", "UNKNOWN")
    (world.home / "well").unlink()
    await world.until(spec, lambda seen: of(seen, "first").health == "UNHEALTHY")
    await world.stop(spec)


@in_world
async def test_a_dependency_that_takes_longer_than_its_start_timeout_fails_the_task(world: World) -> None:
    """`startTimeout` is the dependency's: those that wait for it give up."""
    first = container(
        "first", sh("exec sleep 600"), health_check=check("false", interval=60), start_timeout=0.2
    )
    second = container("second", ["true"], depends_on=after("HEALTHY"))
    last = await world.ended(await world.run(first, second))

    assert "[first] for target [second] has timed out" in last.failure
    assert of(last, "first").exit_code == 143


@in_world
async def test_containers_that_wait_for_each_other_fail_the_task(world: World) -> None:
    """A circle, which registration refuses, does not hang."""
    one = container("first", ["true"], depends_on=after("START", "second"))
    two = container("second", ["true"], depends_on=after("START"))
    last = await world.ended(await world.run(one, two))

    assert last.failure == "ResourceInitializationError: containers first, second wait for each other"


@in_world
async def test_a_check_that_takes_too_long_is_killed_with_all_it_started(world: World) -> None:
    """A timeout is a failure; neither the check nor its child outlives it."""
    script = "sleep 600 & echo $! >> pids; wait"
    app = container("app", sh("exec sleep 600"), health_check=check(script, timeout=0.1, retries=1))
    spec = await world.run(app)
    await world.until(spec, lambda seen: seen.containers and of(seen, "app").health == "UNHEALTHY")

    pids = [int(line) for line in (world.home / "pids").read_text().split()]
    await until(lambda: not is_alive(pids[0]))
    await world.stop(spec)


@in_world
async def test_failures_within_the_start_period_do_not_count(world: World) -> None:
    """Until the start period is over or a check has succeeded, failures leave the health unknown."""
    fails = "echo x >> checks; test -e well"
    app = container("app", sh("exec sleep 600"), health_check=check(fails, retries=1, start_period=60))
    spec = await world.run(app)
    await until(lambda: (world.home / "checks").exists())
    await until(lambda: (world.home / "checks").read_text().count("x") >= 4)
    assert {of(seen, "app").health for seen in world.seen[spec.id]} == {"UNKNOWN"}
    (world.home / "well").touch()
    await world.until(spec, lambda seen: of(seen, "app").health == "HEALTHY")
    (world.home / "well").unlink()
    await world.until(spec, lambda seen: of(seen, "app").health == "UNHEALTHY")
    await world.stop(spec)


@in_world
async def test_a_check_sees_what_its_container_sees(world: World) -> None:
    """It runs in the container's folder, with its environment; `CMD` runs without a shell."""
    there = world.home / "there"
    there.mkdir()
    health = check("", command=["CMD", "/bin/sh", "-c", 'echo "$GREETING $KECS_CONTAINER_NAME" > here'])
    app = container(
        "app", sh("exec sleep 600"), environment={"GREETING": "hej"},
        working_directory=str(there), health_check=health,
    )  # fmt: skip
    spec = await world.run(app)
    await world.until(spec, lambda seen: seen.containers and of(seen, "app").health == "HEALTHY")

    assert (there / "here").read_text() == "hej app\n"
    await world.stop(spec)
