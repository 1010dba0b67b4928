"""A running ECS API for the tests here: real store, real model, real sockets, in a thread."""

import asyncio
import concurrent.futures
import contextlib
import itertools
import shutil
import socket
import tempfile
import threading
import time
from pathlib import Path

import boto3
import botocore.config
import pytest

from kecs.client.instance import Instance
from kecs.controlplane.ecs_model import EcsModel
from kecs.controlplane.http import Servers, build_api
from kecs.ecs.context import Context
from kecs.store.ecs import Store

REGION = "eu-west-1"
KEY = "AKIAKECSKECSKECS"


class RunningApi:
    """The API on 127.0.0.1 and ::1 on one port, and an admin application on a Unix socket."""

    def __init__(self, folder: Path, **members):
        self.folder = folder
        self.instance = Instance(
            name="default", id="01234567", region=REGION, api_port=0, access_key_id=KEY, directory="/",
            created_at=1.0, **members,
        )  # fmt: skip
        self.admin_requests = []
        self.loop = asyncio.new_event_loop()
        self._ready = concurrent.futures.Future()
        self._done = asyncio.Event()
        self._clients = []
        self._thread = threading.Thread(target=self._main, name="api")
        self._thread.start()
        self._ready.result(30)

    def close(self):
        for client in self._clients:
            client.close()
        if self._thread.is_alive():
            self.loop.call_soon_threadsafe(self._done.set)
            self._thread.join(30)

    def run(self, coroutine):
        """Run a coroutine on the server's loop."""
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(30)

    def client(self, region="us-west-2", key="any", host="127.0.0.1"):
        client = boto3.client(
            "ecs",
            endpoint_url=f"http://{host}:{self.port}",
            region_name=region,
            aws_access_key_id=key,
            aws_secret_access_key="any",
            config=botocore.config.Config(retries={"total_max_attempts": 1}),
        )
        self._clients.append(client)
        return client

    def connect(self, host="127.0.0.1"):
        return contextlib.closing(socket.create_connection((host, self.port), timeout=20))

    async def admin(self, scope, receive, send):
        self.admin_requests.append(scope["path"])
        await self.admin_answer(scope, receive, send)

    @staticmethod
    async def admin_answer(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"5")]})
        await send({"type": "http.response.body", "body": b"admin"})

    def _main(self):
        try:
            self.loop.run_until_complete(self._serve())
        except BaseException as error:
            if self._ready.done():
                raise
            self._ready.set_exception(error)
        finally:
            self.loop.close()

    async def _serve(self):
        ids = itertools.count()
        self.store = await Store.open(self.folder / "kecs.duckdb")
        self.model = EcsModel()
        api = build_api(
            self.store,
            self.model,
            self.instance,
            lambda region: Context(region=region, now=time.time(), new_id=lambda: f"{next(ids):032x}"),
        )
        four, six = socket.socket(), socket.socket(socket.AF_INET6)
        four.bind(("127.0.0.1", 0))
        self.port = four.getsockname()[1]
        six.bind(("::1", self.port))
        unix = socket.socket(socket.AF_UNIX)
        self.admin_path = self.folder / "controlplane.sock"
        unix.bind(str(self.admin_path))
        self.servers = Servers(api, [four, six], self.admin, unix)
        await self.servers.start()
        self._ready.set_result(None)
        await self._done.wait()
        await self.servers.stop()
        await self.store.close()
        await self.loop.shutdown_default_executor()


@pytest.fixture
def short_path():
    """A temporary folder under a short path."""
    path = Path(tempfile.mkdtemp(dir="/tmp", prefix="kecs-"))
    yield path
    shutil.rmtree(path)


@pytest.fixture
def start_api(short_path):
    """Start an API; members go into its `Instance`."""
    running = []

    def start(**members):
        running.append(RunningApi(short_path, **members))
        return running[-1]

    yield start
    for api in running:
        api.close()


@pytest.fixture
def api(start_api):
    return start_api()
