"""A process that commits as fast as it can and says what was acknowledged; test_durability kills it.

Each transaction moves both rows of a pair to the same number: half of it must never be seen.
"""

import asyncio
import itertools
import os
import sys
from pathlib import Path

from kecs.ecs.model import Cluster, Family
from kecs.store import db
from kecs.store.ecs import Store

PAIRS = 8


def bump(pair: int, number: int):
    def change(tx):
        tx.put(Cluster(region="r", name=f"pair-{pair}", created_at=float(number)))
        tx.put(Family(region="r", name=f"pair-{pair}", last_revision=number))
        if number % 7 == 0:  # rows also go
            tx.put(Family(region="gone", name=f"pair-{pair}", last_revision=number))
        elif row := tx.get(Family, "gone", f"pair-{pair}"):
            tx.delete(row)

    return change


async def commit_for_ever(store: Store, pair: int) -> None:
    row = store.state.get(Family, "r", f"pair-{pair}")
    for number in itertools.count(row.last_revision + 1 if row else 1):
        await store.transact(bump(pair, number))
        # One write of a few bytes to a pipe is whole, or not there.
        os.write(1, f"{pair} {number}\n".encode())


async def main() -> None:
    db.CHECKPOINT_BYTES = int(sys.argv[2])
    store = await Store.open(Path(sys.argv[1]))
    os.write(1, b"open\n")
    await asyncio.gather(*(commit_for_ever(store, pair) for pair in range(PAIRS)))


if __name__ == "__main__":
    asyncio.run(main())
