"""Running a test's coroutine with a client of its own, and proving that it leaves no task."""

from __future__ import annotations

import asyncio
import functools

from kecs.kube.client import KubeClient


def with_client(scene):
    """Decorate `async def test(client, api)`: the client is open, and closed afterwards."""

    @functools.wraps(scene)
    def test(api, access):
        async def run():
            client = await KubeClient.open(access)
            try:
                async with asyncio.timeout(20):
                    await scene(client, api)
            finally:
                await client.close()
            for _ in range(20):  # httpx leaves it to the event loop to close one of its generators
                await asyncio.sleep(0)
            left = asyncio.all_tasks() - {asyncio.current_task()}
            assert not left, left

        asyncio.run(run())
        api.wait_for(lambda: api.connections == 0, "the client has closed its connections")

    del test.__wrapped__  # pytest would read the scene's own arguments
    return test
