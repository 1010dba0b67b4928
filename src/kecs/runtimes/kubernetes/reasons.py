"""Why a container or a Pod does not run, in ECS's words. Pure; called by `pods`.

Reasons of containers are those of the kubelet (pkg/kubelet/images, pkg/kubelet/kuberuntime) and of
containerd's CRI; those of Pods come from its eviction, admission and shutdown managers and from the
controllers that delete Pods. ECS's names: Developer Guide, stopped-task-error-codes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

OUT_OF_MEMORY = "OutOfMemoryError: Container killed due to memory usage"
POD_DELETED = "Task was stopped: its pod was deleted"
DRAINED = "Task was stopped: its pod was deleted while its node was drained"
K3D_STOPPED = f"{DRAINED}, as k3d does whenever its cluster or Docker stops"
NEVER_RAN = frozenset({"StartError", "ContainerCannotRun"})
"""Reasons of a `terminated` state whose process never began: the exit code is the kubelet's own."""
NOT_SEEN = "ContainerStatusUnknown"
"""Reason of a `terminated` state that the kubelet makes up for what it cannot find when a Pod goes: one that
had not begun, or whose end nobody saw. Its exit code, 137, says nothing (pkg/kubelet/status_manager.go)."""

_ERRORS = {
    "ImagePullBackOff": "CannotPullContainerError",
    "ErrImagePull": "CannotPullContainerError",
    "ErrImageNeverPull": "CannotPullContainerError",
    "InvalidImageName": "CannotPullContainerError",
    "ImageInspectError": "CannotPullContainerError",
    "RegistryUnavailable": "CannotPullContainerError",
    "SignatureValidationFailed": "CannotPullContainerError",
    "CreateContainerConfigError": "CannotCreateContainerError",
    "CreateContainerError": "CannotCreateContainerError",
    "PreCreateHookError": "CannotCreateContainerError",
    "RunContainerError": "CannotStartContainerError",
    "PreStartHookError": "CannotStartContainerError",
    "PostStartHookError": "CannotStartContainerError",
}
"""ECS's name of each reason for which a container waits and that is no step of its start."""
_TRIED_AGAIN = frozenset({"ErrImagePull", "RegistryUnavailable", "SignatureValidationFailed"})
"""A failure to pull: the kubelet looks again after 10 to 15 s, and says ImagePullBackOff then."""
_ANSWERED = (
    "not found", "manifest unknown", "denied", "unauthorized", "authorization failed", "forbidden",
)  # fmt: skip
"""Parts of messages, in small letters, of a pull that a registry has answered: it would say so again."""
_PASSING = ("deadline exceeded", "failed to reserve container name", "connection refused", "failed to sync")
"""Parts of messages of a node that is busy, or whose containerd starts anew: not the container's fault."""
_BACK_OFF = re.compile(r"^Back-off pulling image \"[^\"]*\"(: )?")
_WRAPPING = re.compile(
    r'^(ErrImagePull|rpc error: code = \w+ desc =|failed to pull and unpack image "[^"]*":)[: ]*'
)
_OF_PODS = {
    "Evicted": "Task was stopped: its pod was evicted",
    "Preempting": "Task was stopped: its pod made room for a critical one",
    "NodeShutdown": "Task was stopped: its node shuts down",
    "Terminated": "Task was stopped: its node shuts down",
    "NodeLost": "Task was lost: its node does not answer",
    "DeadlineExceeded": "Task was stopped: its pod was active for longer than its deadline",
}
"""What the cluster did to a Pod, by `status.reason`."""
_OF_DISRUPTIONS = {
    "PreemptionByScheduler": "Task was stopped: its pod made room for one of higher priority",
    "DeletionByTaintManager": "Task was lost: its node is not ready or does not answer",
    "EvictionByEvictionAPI": "Task was stopped: its pod was evicted from its node, which is being drained",
    "DeletionByPodGC": "Task was lost: its node is gone",
    "TerminationByKubelet": "Task was stopped: its node ended its pod",
}
"""Who deletes a Pod, by the reason of its condition DisruptionTarget (KEP-3329)."""


def waiting(state: Mapping[str, Any], image_tried: str | None = None) -> str | None:
    """Return why a container will not run; None while it may yet. `state` is `state.waiting`.

    The kubelet goes on trying for ever; ECS gives the task up. `image_tried` is what was done for its image
    before that: a person who reads that it cannot be pulled is told.
    """
    reason, message = state.get("reason", ""), state.get("message", "")
    error = _ERRORS.get(reason)
    if error is None or (reason in _TRIED_AGAIN and not _answered(message)):
        return None
    passing = error != "CannotPullContainerError" and any(part in message for part in _PASSING)
    if passing:
        return None
    tried = f" ({image_tried})" if image_tried and error == "CannotPullContainerError" else ""
    return f"{error}: {_told(message) or reason}{tried}"


def terminated(state: Mapping[str, Any]) -> str | None:
    """Return why a container ended, where its exit code does not say it. `state` is `state.terminated`."""
    reason = state.get("reason", "")
    if reason == "OOMKilled":
        return OUT_OF_MEMORY
    if reason in NEVER_RAN:
        return f"CannotStartContainerError: {_told(state.get('message', '')) or reason}"
    if reason in ("Completed", "Error", ""):
        return None
    message = _told(state.get("message", ""))
    return f"{reason}: {message}" if message else reason


def of_disruption(status: Mapping[str, Any]) -> str | None:
    """Return why the cluster ended a Pod as a whole; None when it did not."""
    reason, message = _of_pod(status)
    known = _OF_PODS.get(reason)
    if known is None:
        return None
    return f"{known}: {message}" if message else known


def of_refusal(status: Mapping[str, Any]) -> str | None:
    """Return why the node that was to run a Pod did not take it; None when it did."""
    reason, message = _of_pod(status)
    if not reason or reason in _OF_PODS:
        return None
    detail = f"{reason}: {message}" if message else reason
    return f"ResourceInitializationError: its node refused the task's pod: {detail}"


def of_deletion(status: Mapping[str, Any]) -> str:
    """Return who deletes a Pod, as far as it says so; KECS itself does not ask."""
    for condition in status.get("conditions") or []:
        if condition.get("type") == "DisruptionTarget" and condition.get("status") == "True":
            why = _OF_DISRUPTIONS.get(condition.get("reason", ""))
            if why is not None:
                return why
    return POD_DELETED


def unschedulable(status: Mapping[str, Any]) -> str | None:
    """Return why no node can have a Pod yet; None when one has it, or nobody has looked."""
    for condition in status.get("conditions") or []:
        if condition.get("type") == "PodScheduled" and condition.get("status") == "False":
            return _told(condition.get("message", "")) or "no node fits"
    return None


def _of_pod(status: Mapping[str, Any]) -> tuple[str, str]:
    """Return (reason, message) of a Pod that failed as a whole; empty when its containers ended."""
    if status.get("phase") != "Failed":
        return "", ""
    return status.get("reason") or "", _told(status.get("message") or "")


def _answered(message: str) -> bool:
    """Tell whether a registry said that it has no such image, or not for this cluster."""
    text = message.lower()
    return any(part in text for part in _ANSWERED)


def _told(message: str) -> str:
    """Return a message on one line, without the layers of wrapping that say nothing."""
    message = _BACK_OFF.sub("", " ".join(message.split()))
    while (shorter := _WRAPPING.sub("", message)) != message:
        message = shorter
    return message
