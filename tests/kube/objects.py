"""What a scripted API server stores: objects, their versions, and the history that watches resume from."""

from __future__ import annotations

import copy
import uuid

PLURALS = {
    "pods": "Pod",
    "services": "Service",
    "nodes": "Node",
    "namespaces": "Namespace",
    "secrets": "Secret",
    "events": "Event",
}
GLOBAL = {"Node", "Namespace"}


class Refused(Exception):  # noqa: N818 - it is an answer
    """An answer of 400 and above."""

    def __init__(self, code, reason, message, causes=()):
        super().__init__(message)
        self.code = code
        self.body = status(code, reason, message, causes)


def status(code, reason="", message="", causes=(), retry_after=None, continue_token=None):
    """A `metav1.Status`. `causes`: (reason, field, message) each."""
    details = {}
    if causes:
        details["causes"] = [{"reason": r, "field": f, "message": m} for r, f, m in causes]
    if retry_after is not None:
        details["retryAfterSeconds"] = retry_after
    return {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {"continue": continue_token} if continue_token else {},
        "status": "Failure",
        "message": message,
        "reason": reason,
        "details": details,
        "code": code,
    }


class Objects:
    """All objects. Not safe for threads: `ScriptedApi` calls it on its loop only."""

    def __init__(self):
        self.version = 100
        self.oldest = 0
        """Versions below this are forgotten: a watch cannot resume there, a `continue` token has expired."""
        self.graceful = False
        """Deleted pods stay, with a deletionTimestamp, until `remove`."""
        self.changed = []
        """Called with (type, object) after each change."""
        self._objects = {}
        self._history = []
        for name in ("default", "kube-system"):
            self.put({"kind": "Namespace", "metadata": {"name": name}})

    def get(self, kind, namespace, name):
        try:
            return self._objects[kind, namespace if kind not in GLOBAL else None, name]
        except KeyError:
            plural = next(plural for plural, each in PLURALS.items() if each == kind)
            raise Refused(404, "NotFound", f'{plural} "{name}" not found') from None

    def select(self, kind, namespace, selector):
        return [
            found
            for (each, where, _), found in sorted(self._objects.items(), key=lambda item: str(item[0]))
            if each == kind and (namespace is None or where == namespace) and matches(found, selector)
        ]

    def put(self, manifest):
        """Create or replace."""
        found = copy.deepcopy(manifest)
        found.setdefault("apiVersion", "v1")
        metadata = found["metadata"]
        kind = found["kind"]
        namespace = None if kind in GLOBAL else metadata.setdefault("namespace", "default")
        if namespace is not None:
            self._check_namespace(namespace)
        old = self._objects.get((kind, namespace, metadata["name"]))
        self._check_node_ports(found)
        metadata.setdefault("uid", old["metadata"]["uid"] if old else str(uuid.uuid4()))
        metadata.setdefault("creationTimestamp", "2026-01-01T00:00:00Z")
        if old is not None and _without_version(old) == _without_version(found):
            return old
        self._objects[kind, namespace, metadata["name"]] = found
        self._note("MODIFIED" if old else "ADDED", found)
        return found

    def create(self, manifest):
        metadata = manifest["metadata"]
        kind, namespace = manifest["kind"], metadata.get("namespace")
        if (kind, namespace if kind not in GLOBAL else None, metadata["name"]) in self._objects:
            raise Refused(409, "AlreadyExists", f'"{metadata["name"]}" already exists')
        return self.put(manifest)

    def apply(self, manifest, manager):
        """Server-side apply, roughly: what is named is set, the rest stays."""
        kind, metadata = manifest["kind"], manifest["metadata"]
        old = self._objects.get(
            (kind, None if kind in GLOBAL else metadata.get("namespace"), metadata["name"])
        )
        merged = _merge(old or {}, manifest)
        merged["metadata"]["managedFields"] = [{"manager": manager, "operation": "Apply"}]
        return self.put(merged)

    def delete(self, kind, namespace, name, options):
        found = self.get(kind, namespace, name)
        wanted = (options.get("preconditions") or {}).get("uid")
        actual = found["metadata"]["uid"]
        if wanted is not None and wanted != actual:
            raise Refused(
                409,
                "Conflict",
                "Precondition failed: UID in precondition: "
                f"{wanted}, UID in object meta: {actual}",
            )  # fmt: skip
        if kind == "Pod" and self.graceful and options.get("gracePeriodSeconds") != 0:
            terminating = copy.deepcopy(found)
            terminating["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
            return self.put(terminating)
        self.remove(kind, namespace, name)
        return found

    def remove(self, kind, namespace, name):
        """Take an object away; a namespace with all that is in it."""
        found = self.get(kind, namespace, name)
        if kind == "Namespace":
            for each, where, other in [key for key in self._objects if key[1] == name]:
                self.remove(each, where, other)
        del self._objects[kind, namespace if kind not in GLOBAL else None, name]
        self._note("DELETED", copy.deepcopy(found))

    def since(self, version):
        """Changes after `version`; None when they are forgotten."""
        if version < self.oldest:
            return None
        return [(kind, found) for number, kind, found in self._history if number > version]

    def forget(self):
        """Compact the history: nobody can resume from before now."""
        self.version += 1
        self.oldest = self.version
        self._history.clear()

    def _note(self, kind, found):
        self.version += 1
        found["metadata"]["resourceVersion"] = str(self.version)
        self._history.append((self.version, kind, found))
        for listener in list(self.changed):
            listener(kind, found)

    def _check_namespace(self, namespace):
        if ("Namespace", None, namespace) not in self._objects:
            raise Refused(404, "NotFound", f'namespaces "{namespace}" not found')

    def _check_node_ports(self, manifest):
        if manifest["kind"] != "Service":
            return
        me = (manifest["metadata"]["namespace"], manifest["metadata"]["name"])
        taken = {
            port.get("nodePort")
            for (kind, *where), other in self._objects.items()
            if kind == "Service" and tuple(where) != me
            for port in other.get("spec", {}).get("ports", [])
        }
        for index, port in enumerate(manifest.get("spec", {}).get("ports", [])):
            if port.get("nodePort") in taken - {None}:
                field = f"spec.ports[{index}].nodePort"
                value = f"Invalid value: {port['nodePort']}: provided port is already allocated"
                raise Refused(
                    422,
                    "Invalid",
                    f'Service "{me[1]}" is invalid: {field}: {value}',
                    [("FieldValueInvalid", field, value)],
                )


def matches(found, selector):
    """Whether an object has all labels of `a=b,c=d`."""
    labels = found["metadata"].get("labels") or {}
    return all(
        labels.get(part.partition("=")[0]) == part.partition("=")[2] for part in selector.split(",") if part
    )


def _merge(old, new):
    merged = copy.deepcopy(old)
    for key, value in new.items():
        if isinstance(value, dict) and isinstance(merged.get(key), dict):
            merged[key] = _merge(merged[key], value)
        else:
            merged[key] = copy.deepcopy(value)
    return merged


def _without_version(found):
    metadata = {k: v for k, v in found["metadata"].items() if k != "resourceVersion"}
    return {**found, "metadata": metadata}
