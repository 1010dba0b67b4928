"""The events of a service, in AWS's wording, and the rule by which one is said again.

Texts: ECS Developer Guide, service-event-messages. Clients parse them: ecs-deploy takes each event that
contains `unable` for an error, so that word is kept for what AWS uses it for.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from kecs.ecs.model import Service, ServiceEvent

MOST = 100
"""So many events a service keeps (API reference, Service.events)."""
SILENCE = 6 * 3600.0
"""Seconds for which the same message is not said again unless its cause was resolved meanwhile (DG)."""

NewId = Callable[[], str]


def tasks_started(service: Service, task_ids: Sequence[str], now: float, new_id: NewId) -> Service:
    """Say that these tasks were made; nothing is said of none."""
    return _of_tasks(service, "has started {} tasks: {}.", task_ids, now, new_id)


def tasks_stopped(service: Service, task_ids: Sequence[str], now: float, new_id: NewId) -> Service:
    """Say that the scheduler stops these tasks; nothing is said of none."""
    return _of_tasks(service, "has stopped {} running tasks: {}.", task_ids, now, new_id)


def failed_health_checks(service: Service, task_id: str, now: float, new_id: NewId) -> Service:
    """Say that a task is replaced because it is UNHEALTHY."""
    return _say(service, f"(task {task_id}) failed container health checks.", now, new_id)


def deployment_completed(service: Service, deployment_id: str, now: float, new_id: NewId) -> Service:
    """Say that a deployment is COMPLETED."""
    return _say(service, f"(deployment {deployment_id}) deployment completed.", now, new_id)


def deployment_failed(service: Service, deployment_id: str, now: float, new_id: NewId) -> Service:
    """Say that the circuit breaker ended a deployment."""
    text = f"(deployment {deployment_id}) deployment failed: tasks failed to start."
    return _say(service, text, now, new_id)


def rolling_back(service: Service, deployment_id: str, now: float, new_id: NewId) -> Service:
    """Say which deployment's revision the service goes back to."""
    return _say(service, f"rolling back to deployment {deployment_id}.", now, new_id)


def steady_state(service: Service, now: float, new_id: NewId) -> Service:
    """Say that the service has what it wants; `Service.steady` keeps this from being said twice."""
    return _say(service, "has reached a steady state.", now, new_id)


def cannot_start_consistently(service: Service, now: float, new_id: NewId) -> Service:
    """Say that tasks fail again and again and are started more slowly."""
    return _say_once(service, "is unable to consistently start tasks successfully.", now, new_id)


def cannot_place(service: Service, reason: str, now: float, new_id: NewId) -> Service:
    """Say that a task could not even be made."""
    return _say_once(service, f"was unable to place a task. Reason: {reason}.", now, new_id)


_NO_PLACE = "was unable to place a task because no container instance met all of its requirements."


def no_place(service: Service, reason: str, now: float, new_id: NewId) -> Service:
    """Say that a task was made and no node takes it; once, though the words of the reason may change."""
    return _say_once(service, f"{_NO_PLACE} Reason: {reason}.", now, new_id, like=_NO_PLACE)


def node_port_moved(
    service: Service, container_port: int, before: int, port: int, now: float, new_id: NewId
) -> Service:
    """Say that another Service of the cluster has the node port that was chosen."""
    text = (
        f"found node port {before} of container port {container_port} in use by another Service: "
        f"it has node port {port} now."
    )
    return _say(service, text, now, new_id)


def cannot_expose(service: Service, reason: str, now: float, new_id: NewId) -> Service:
    """Say that the ports of a public service cannot have node ports."""
    return _say_once(service, f"was unable to expose its ports. Reason: {reason}", now, new_id)


def imports_image(service: Service, image: str, image_id: str, now: float, new_id: NewId) -> Service:
    """Say that tasks wait for an image of this machine's Docker; once for each id of an image."""
    text = f"is importing image {image} ({image_id}) from Docker on this machine into the cluster."
    return _say_once(service, text, now, new_id)


def imported_image(
    service: Service, image: str, image_id: str, seconds: float, now: float, new_id: NewId
) -> Service:
    """Say that such an image is in the cluster, and how long that took."""
    text = f"has imported image {image} ({image_id}) from Docker on this machine into the cluster"
    return _say_once(service, f"{text} in {seconds:.1f} s.", now, new_id, like=text)


def image_not_imported(
    service: Service, image: str, image_id: str, reason: str, now: float, new_id: NewId
) -> Service:
    """Say that such an image did not come into the cluster, which goes on and pulls it."""
    text = f"could not import image {image} ({image_id}) from Docker on this machine into the cluster"
    return _say_once(service, f"{text}, which tries to pull it. Reason: {reason}", now, new_id, like=text)


def blocked_by_configuration(service: Service, now: float, new_id: NewId) -> Service:
    """Say that minimumHealthyPercent and maximumPercent leave no next step."""
    text = (
        "was unable to stop or start tasks during a deployment because of the service deployment "
        "configuration. Update the minimumHealthyPercent or maximumPercent value and try again."
    )
    return _say_once(service, text, now, new_id)


def _of_tasks(service: Service, text: str, task_ids: Sequence[str], now: float, new_id: NewId) -> Service:
    if not task_ids:
        return service
    listed = " ".join(f"(task {task_id})" for task_id in task_ids)
    return _say(service, text.format(len(task_ids), listed), now, new_id)


def _say_once(service: Service, text: str, now: float, new_id: NewId, *, like: str | None = None) -> Service:
    """Say it unless it was said within `SILENCE` and nothing shows that its cause was resolved since.

    What begins with `like` (by default only the same text) counts as the same.
    """
    same = _message(service, like or text)
    resolved = _message(service, "has reached a steady state.")
    for event in service.events:  # newest first
        if event.message == resolved or event.created_at <= now - SILENCE:
            break
        if event.message == same or (like and event.message.startswith(same)):
            return service
    return _say(service, text, now, new_id)


def _say(service: Service, text: str, now: float, new_id: NewId) -> Service:
    event = ServiceEvent(id=_uuid(new_id()), created_at=now, message=_message(service, text))
    return msgspec.structs.replace(service, events=[event, *service.events][:MOST])


def _message(service: Service, text: str) -> str:
    return f"(service {service.name}) {text}"


def _uuid(digits: str) -> str:
    return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))
