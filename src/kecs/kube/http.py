"""Requests to an API server over asyncio: httpx, with the access's credentials and this program's errors.

Used by `kecs.kube.client` and `kecs.kube.watch` only, in the control plane. It knows HTTP and who we are,
no kinds.

httpx and not lightkube: of what is asked for here, lightkube does get, list and apply; its watch has no read
time-out, no bookmarks and no relist, its delete no preconditions, its kubeconfig no expiry of credentials, no
`tls-server-name` and no merging. What is left would be the paths of six kinds.
"""

from __future__ import annotations

import asyncio
import random
import ssl
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, TypeVar

import httpx2
import msgspec

from kecs import __version__
from kecs.kube import sockets
from kecs.kube.access import Access
from kecs.kube.advice import explained
from kecs.kube.errors import ApiError, Unreachable, refusal
from kecs.kube.failures import unreachable

CONNECT = 5.0
"""Seconds for TCP and TLS."""
ANSWER = 30.0
"""Seconds without a byte of an answer; the API server itself gives up after 60."""
ATTEMPTS = 5
"""How often a request is sent that the server puts off (429, or 503 with Retry-After)."""
_MAX_RETRY_AFTER = 30.0
_SPREAD = 0.2
"""Part of the wait by which it is made longer at random, so that not all come back at once."""
_PUT_OFF = frozenset({429, 503})
_REDIRECTION = 300
"""From here on an answer is a refusal: an API server does not redirect."""
_LIMITS = httpx2.Limits(max_connections=None, max_keepalive_connections=8, keepalive_expiry=60.0)
"""A watch and a followed log hold a connection each, so their number has no limit of its own."""
_REPEATABLE = frozenset({"GET", "PATCH", "DELETE"})
"""Sent once more when a kept connection turned out to be dead. The PATCH is a server-side apply: doing it
twice is doing it once."""

T = TypeVar("T")
Renewed = Callable[[dict[str, str], int], Awaitable[bool]]
"""Gets other credentials than those of refused headers and of a generation; tells whether there are any."""


@dataclass(eq=False, slots=True)
class _Pool:
    """Connections that presented the same client certificate, closed when replaced and no longer used."""

    client: httpx2.AsyncClient
    generation: int
    users: int = 0
    retired: bool = False


class Http:
    """The connections to one API server."""

    def __init__(self, access: Access) -> None:
        self.access = access
        self._pools: list[_Pool] = []
        """The newest last; older ones are those whose answers are still being read."""
        self._making = asyncio.Lock()
        # A thread of its own, and one: a plugin may take a minute, and while it does, those who wait for it
        # must not take the threads of others.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="credentials")
        self._stale = False
        """Kept connections may be dead: the next request makes new ones."""
        self._roused = 0
        """How often connections became untrustworthy."""
        self._waiting: set[asyncio.Timeout] = set()
        """Of streams that can be resumed, while they wait for more."""
        self.closed = False
        """Whether `aclose` was called: nothing can be asked any more."""

    async def aclose(self) -> None:
        """Close every connection; what is under way fails with `Unreachable`."""
        self.closed = True
        self._thread.shutdown(wait=False)
        pools, self._pools = self._pools, []
        for pool in pools:
            await pool.client.aclose()

    def rouse(self) -> None:
        """Trust no connection any more: this machine has slept, and the server may know of none of them.

        What waits on a stream that can be resumed gets `Unreachable`; all other requests end as they may.
        """
        self._stale = True
        self._roused += 1
        waiting, self._waiting = self._waiting, set()  # each is ended once
        for patience in waiting:
            patience.reschedule(asyncio.get_running_loop().time())

    async def request(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        body: Any = None,
        content_type: str = "application/json",
    ) -> Any:
        """Send a request and return the decoded JSON. Raises `ApiError` from status 400, `Unreachable`."""
        async with self.stream(
            method, path, params=params, body=body, content_type=content_type, silence=ANSWER
        ) as answer:
            content = await self.read(answer)
        try:
            return msgspec.json.decode(content)
        except msgspec.DecodeError as error:
            raise Unreachable(
                f"what answers at {self.access.server} is not a Kubernetes API server",
                "compare the kubeconfig's `server` with the cluster's address",
            ) from error

    @asynccontextmanager
    async def stream(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        body: Any = None,
        content_type: str = "application/json",
        silence: float | None,
    ) -> AsyncGenerator[httpx2.Response, None]:
        """Send a request; give the answer with its body unread.

        `silence` is the time in seconds without a byte after which the answer counts as lost; None: never.
        Raises `ApiError` from status 400, `Unreachable`.
        """
        content = None if body is None else msgspec.json.encode(body)
        asked = _Asked(method, path, dict(params or {}), content, content_type, silence)
        retry = _Retry(self._renewed, repeatable=method in _REPEATABLE)
        while True:
            async with self._pool() as pool:
                credentials = await self._credentials()
                try:
                    answer = await self._send(pool, asked, credentials)
                except httpx2.TransportError as error:
                    if self.closed or not retry.after_break(error):
                        raise unreachable(self.access.server, error) from error
                    continue
                try:
                    if answer.status_code < _REDIRECTION:
                        yield answer
                        return
                    refused = refusal(answer.status_code, await self.read(answer), answer.headers)
                finally:
                    await answer.aclose()
            if not await retry.after_refusal(refused, credentials, pool.generation):
                raise explained(refused, self.access)

    async def chunks(
        self, answer: httpx2.Response, *, resumable: bool = False
    ) -> AsyncGenerator[bytes, None]:
        """Yield the answer's body as it comes. Raises `Unreachable` when it ends before its end.

        One that is `resumable` ends so at a `rouse` too.
        """
        try:
            async with aclosing(answer.aiter_raw()) as parts:
                if not resumable:
                    async for part in parts:
                        yield part
                    return
                since = self._roused
                while (more := await self._next(parts)) is not None:
                    yield more
                    if self._roused != since:  # while its reader was busy with this part
                        raise self._too_old()
        except (httpx2.TransportError, httpx2.StreamError) as error:
            raise unreachable(self.access.server, error) from error

    async def _next(self, parts: AsyncGenerator[bytes, None]) -> bytes | None:
        """Return what comes next; None at the end."""
        try:
            async with asyncio.timeout(None) as patience:
                self._waiting.add(patience)
                try:
                    return await anext(parts, None)
                finally:
                    self._waiting.discard(patience)
        except TimeoutError as error:
            raise self._too_old() from error

    def _too_old(self) -> Unreachable:
        return Unreachable(f"the connection to {self.access.server} is older than a sleep")

    async def read(self, answer: httpx2.Response) -> bytes:
        """Return the whole body. Raises `Unreachable`."""
        try:
            return await answer.aread()
        except (httpx2.TransportError, httpx2.StreamError) as error:
            raise unreachable(self.access.server, error) from error

    async def _send(self, pool: _Pool, asked: _Asked, credentials: dict[str, str]) -> httpx2.Response:
        typed = {} if asked.content is None else {"Content-Type": asked.content_type}
        request = pool.client.build_request(
            asked.method,
            self.access.server + asked.path,
            params=asked.params,
            content=asked.content,
            headers={**typed, **credentials},
            timeout=httpx2.Timeout(ANSWER, connect=CONNECT, read=asked.silence, pool=None),
            extensions={"sni_hostname": self.access.server_hostname},
        )
        return await pool.client.send(request, stream=True)

    async def _credentials(self) -> dict[str, str]:
        now = self.access.headers_at_once()
        return now if now is not None else await self._on_thread(self.access.headers)

    async def _renewed(self, refused: dict[str, str], generation: int) -> bool:
        """Tell whether there are other credentials to try than those that were refused."""
        return await self._on_thread(lambda: self.access.renew(refused, generation))

    async def _on_thread(self, call: Callable[[], T]) -> T:
        """Do what may wait for the access's lock, or for what its holder waits for."""
        if self.closed:
            raise self._closed()
        return await asyncio.get_running_loop().run_in_executor(self._thread, call)

    def _closed(self) -> Unreachable:
        return Unreachable(f"the connections to {self.access.server} were closed")

    @asynccontextmanager
    async def _pool(self) -> AsyncGenerator[_Pool, None]:
        """Lend the connections; new ones when what TLS presents has changed."""
        if self.closed:
            raise self._closed()
        async with self._making:
            if not self._pools or self._stale or self._pools[-1].generation != self.access.generation:
                self._stale = False
                await self._renew_pool()
            pool = self._pools[-1]
            pool.users += 1
        try:
            yield pool
        finally:
            pool.users -= 1
            await self._close_if_retired(pool)

    async def _renew_pool(self) -> None:
        tls, generation = await self._on_thread(self.access.presented)
        old = self._pools[-1] if self._pools else None
        self._pools.append(_Pool(_client(self.access, tls), generation))
        if old is not None:
            old.retired = True
            await self._close_if_retired(old)

    async def _close_if_retired(self, pool: _Pool) -> None:
        if pool.retired and not pool.users and pool in self._pools:
            self._pools.remove(pool)
            await pool.client.aclose()


@dataclass(frozen=True, slots=True)
class _Asked:
    """A request as it is sent at each attempt."""

    method: str
    path: str
    params: dict[str, str]
    content: bytes | None
    content_type: str
    silence: float | None


class _Retry:
    """When one request is sent again.

    Once for what a dead connection explains, once for what old credentials explain, and `ATTEMPTS` times in
    all when the server puts it off.
    """

    def __init__(self, renewed: Renewed, *, repeatable: bool) -> None:
        self._renewed = renewed
        self._may_repeat = repeatable
        self._may_renew = True
        self._left = ATTEMPTS - 1

    def after_break(self, error: httpx2.TransportError) -> bool:
        """Tell whether to send again after a connection broke: a kept one may have been dead already."""
        died = isinstance(error, (httpx2.RemoteProtocolError, httpx2.ReadError, httpx2.WriteError))
        again, self._may_repeat = self._may_repeat and died, False
        return again

    async def after_refusal(self, error: ApiError, credentials: dict[str, str], generation: int) -> bool:
        """Tell whether to send again after `error`, and wait as long as the server asked for.

        `credentials` were sent, on a connection of the access's `generation`.
        """
        if error.status == HTTPStatus.UNAUTHORIZED and self._may_renew:
            self._may_renew = False
            return await self._renewed(credentials, generation)
        if error.retry_after is None or error.status not in _PUT_OFF or not self._left:
            return False
        self._left -= 1
        spread = 1 + _SPREAD * random.random()  # noqa: S311 - it spreads load, it keeps no secret
        await asyncio.sleep(min(error.retry_after, _MAX_RETRY_AFTER) * spread)
        return True


def _client(access: Access, tls: ssl.SSLContext | None) -> httpx2.AsyncClient:
    proxy = None
    if access.proxy is not None:
        host, login = access.proxy.host, access.proxy.authorization
        name = f"[{host}]" if ":" in host else host
        proxy = httpx2.Proxy(
            f"http://{name}:{access.proxy.port}", headers={"Proxy-Authorization": login} if login else None
        )
    transport = httpx2.AsyncHTTPTransport(
        verify=False if tls is None else tls,
        trust_env=False,
        limits=_LIMITS,
        proxy=proxy,
        socket_options=sockets.OPTIONS,
    )
    return httpx2.AsyncClient(
        transport=transport,
        trust_env=False,
        headers={
            "Accept": "application/json",
            "Accept-Encoding": "identity",
            "User-Agent": f"kecs/{__version__}",
        },
    )
