"""What the control plane asks of a Kubernetes API server: objects as plain dictionaries, over asyncio.

Used by `kecs.runtimes.kubernetes`. It knows kinds, not ECS; what the objects mean is not known here.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import Any, cast

from kecs.kube import kinds
from kecs.kube.access import Access
from kecs.kube.errors import ApiError
from kecs.kube.http import Http
from kecs.kube.watch import Event, Report, Watch, list_all, tidy

FIELD_MANAGER = "kecs"
"""Under this name the API server keeps which fields are ours (server-side apply)."""


class KubeClient:
    """The API server of one access. Calls raise `ApiError` for a refusal and `Unreachable` for no answer."""

    def __init__(self, access: Access) -> None:
        self.access = access
        self._http = Http(access)

    @classmethod
    async def open(cls, access: Access) -> KubeClient:
        """Return a client whose server was asked for its version: it can be reached and speaks Kubernetes."""
        client = cls(access)
        try:
            await client.version()
        except BaseException:
            await client.close()
            raise
        return client

    async def close(self) -> None:
        """Close all connections; calls and watches that are under way end with `Unreachable`."""
        await self._http.aclose()

    @property
    def closed(self) -> bool:
        """Whether `close` was called: nothing can be asked any more."""
        return self._http.closed

    def rouse(self) -> None:
        """Have watches, and logs with times, resumed on new connections: this machine has slept."""
        self._http.rouse()

    async def version(self) -> tuple[int, int]:
        """Return the server's version, for example (1, 35)."""
        answer = await self._http.request("GET", "/version")
        try:
            return int(answer["major"]), int(str(answer["minor"]).rstrip("+"))
        except (KeyError, TypeError, ValueError) as error:
            raise ApiError(200, "", f"{self.access.server}/version does not say a version") from error

    async def get(self, kind: str, namespace: str | None, name: str) -> dict[str, Any] | None:
        """Return an object; None when there is none of that name."""
        try:
            found = await self._http.request("GET", kinds.item(kind, namespace, name))
        except ApiError as error:
            if error.status == 404:
                return None
            raise
        return tidy(found, kind)

    async def list(
        self, kind: str, namespace: str | None, labels: Mapping[str, str]
    ) -> tuple[list[dict[str, Any]], str]:
        """Return all objects with these labels (namespace None: in all namespaces), and their version."""
        return await list_all(self._http, kind, namespace, labels)

    async def apply(self, manifest: dict[str, Any]) -> dict[str, Any]:
        """Make the object as `manifest` says, new or not, taking the fields it names from other managers."""
        kind, namespace, name = _named(manifest)
        applied = await self._http.request(
            "PATCH",
            kinds.item(kind, namespace, name),
            params={"fieldManager": FIELD_MANAGER, "force": "true"},
            body=manifest,
            content_type="application/apply-patch+yaml",  # JSON is YAML
        )
        return tidy(applied, kind)

    async def create(self, manifest: dict[str, Any]) -> dict[str, Any]:
        """Make a new object; `ApiError` 409 `AlreadyExists` when there is one of that name."""
        kind, namespace, _ = _named(manifest)
        created = await self._http.request(
            "POST", kinds.collection(kind, namespace), params={"fieldManager": FIELD_MANAGER}, body=manifest
        )
        return tidy(created, kind)

    async def delete(
        self, kind: str, namespace: str | None, name: str, *, grace: int | None = None, uid: str | None = None
    ) -> bool:
        """Have an object deleted; False when it is gone already.

        `grace` are the seconds a pod gets instead of its own; `uid` is the one that is meant: another object
        of the same name is left alone, and False.
        """
        options: dict[str, Any] = {
            "apiVersion": "v1",
            "kind": "DeleteOptions",
            "propagationPolicy": "Background",
        }
        if grace is not None:
            options["gracePeriodSeconds"] = grace
        if uid is not None:
            options["preconditions"] = {"uid": uid}
        try:
            await self._http.request("DELETE", kinds.item(kind, namespace, name), body=options)
        except ApiError as error:
            if error.status == 404 or (error.status == 409 and uid is not None and _another(error)):
                return False
            raise
        return True

    async def logs(
        self,
        namespace: str,
        pod: str,
        container: str,
        *,
        follow: bool,
        timestamps: bool = False,
        since: str | None = None,
        previous: bool = False,
    ) -> AsyncGenerator[bytes, None]:
        """Yield what a container wrote, as it comes; with `follow` until it ends.

        `timestamps` puts the time (RFC 3339, nanoseconds) and a blank before each line; `since` is such a
        time, from whose second on lines are wanted: together they let a reader that lost the connection go
        on. So such a stream ends with `Unreachable` at a `rouse`, too.
        """
        params = {"container": container, "follow": str(follow).lower()}
        if timestamps:
            params["timestamps"] = "true"
        if since is not None:
            params["sinceTime"] = since
        if previous:
            params["previous"] = "true"
        path = f"{kinds.item('Pod', namespace, pod)}/log"
        # A container may be silent for hours: here keep-alive alone notices a server that is gone.
        async with (
            self._http.stream("GET", path, params=params, silence=None) as answer,
            aclosing(self._http.chunks(answer, resumable=timestamps)) as chunks,
        ):
            async for chunk in chunks:
                yield chunk

    def watch(
        self,
        kind: str,
        labels: Mapping[str, str],
        namespace: str | None = None,
        *,
        report: Report | None = None,
    ) -> AsyncGenerator[Event, None]:
        """Yield `Synced` and then changes, for ever, until it is closed (`aclosing`); see `kecs.kube.watch`.

        `report` is called with what keeps it from going on, and with None when it goes on; it raises
        `Unreachable` only when the client is closed.
        """
        return Watch(self._http, kind, namespace, labels, report).events()


def _named(manifest: Mapping[str, Any]) -> tuple[str, str | None, str]:
    metadata = cast("Mapping[str, Any]", manifest["metadata"])
    return str(manifest["kind"]), metadata.get("namespace"), str(metadata["name"])


def _another(error: ApiError) -> bool:
    """Tell whether a conflict says that the object of that name is not the one that was meant."""
    return "uid" in error.message.lower()
