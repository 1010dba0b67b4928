"""What was acknowledged is there after kill -9, whole, however often and whenever it comes."""

import asyncio
import random
import subprocess
import sys
import time
from pathlib import Path

from kecs.ecs.model import Cluster, Family
from kecs.store import db
from kecs.store.ecs import Store

WRITER = Path(__file__).with_name("writer.py")
ROUNDS = 12


def run_and_kill(database: Path, seconds: float, checkpoint: int = db.CHECKPOINT_BYTES) -> dict[int, int]:
    """Let the writer commit for so long, kill it, and return the last acknowledged number of each pair."""
    command = [sys.executable, str(WRITER), str(database), str(checkpoint)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout.readline() == b"open\n"
            # Not a wait for something to happen: the time of the kill is what varies.
            time.sleep(seconds)
        finally:
            process.kill()
        lines = process.stdout.read().decode().splitlines()
    return {int(pair): int(number) for pair, number in (line.split() for line in lines)}


async def stored(database: Path) -> tuple[dict[int, int], dict[int, int], dict[int, int]]:
    store = await Store.open(database)
    state = store.state
    await store.close()
    return (
        {int(row.name[5:]): int(row.created_at) for row in state.scan(Cluster)},
        {int(row.name[5:]): row.last_revision for row in state.scan(Family, "r")},
        {int(row.name[5:]): row.last_revision for row in state.scan(Family, "gone")},
    )


def test_nothing_acknowledged_is_lost_by_kill_9_and_no_transaction_is_seen_by_half(short_path):
    """One database lives through many kills; about every second round it is reopened by a look."""
    database = short_path / "kecs.duckdb"
    seed = random.randrange(1 << 30)
    chance = random.Random(seed)
    acknowledged: dict[int, int] = {}
    for round_ in range(ROUNDS):
        acknowledged |= run_and_kill(database, chance.uniform(0, 0.25))
        if chance.random() < 0.5 and round_ < ROUNDS - 1:
            continue  # the next writer opens what the kill left
        clusters, families, gone = asyncio.run(stored(database))

        assert clusters == families, f"half a transaction (seed {seed})"
        for pair, number in acknowledged.items():
            # One more may have been committed and not been said.
            assert families[pair] in (number, number + 1), f"pair {pair} (seed {seed})"
        assert gone == {pair: number for pair, number in families.items() if number % 7 == 0}
        acknowledged = families
    assert sum(acknowledged.values()) > ROUNDS


def test_kills_during_checkpoints_lose_nothing_either(short_path):
    """With a checkpoint after nearly every commit, most kills fall into one."""
    database = short_path / "kecs.duckdb"
    chance = random.Random(7)
    for _ in range(6):
        acknowledged = run_and_kill(database, chance.uniform(0, 0.25), checkpoint=1)
        clusters, families, _ = asyncio.run(stored(database))

        assert clusters == families
        assert all(families[pair] in (number, number + 1) for pair, number in acknowledged.items())
