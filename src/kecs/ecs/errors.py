"""The errors of the ECS API: one class for each that botocore's model has, and their base.

Operations raise them; `kecs.wire.awsjson` writes them. Nothing here knows HTTP but for the status.
"""
# ruff: noqa: N818 - the classes are named as AWS names the errors

from __future__ import annotations

from typing import Any, ClassVar


class EcsError(Exception):
    """An error of the API: its code (`__type`), its message and its HTTP status."""

    def __init__(self, code: str, message: str, status: int = 400, **members: Any) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.status = status
        self.members: dict[str, Any] = members
        """Further members of the error's shape, such as `resourceIds` of ConflictException."""


class ModelledError(EcsError):
    """An error whose code is the name of its class."""

    usual: ClassVar[str] = ""
    """AWS's message, where it has one that fits every case."""
    http_status: ClassVar[int] = 400

    def __init__(self, message: str | None = None, **members: Any) -> None:
        super().__init__(type(self).__name__, message or self.usual, self.http_status, **members)


class AccessDeniedException(ModelledError):
    """The caller may not do this."""

    usual = "You don't have authorization to perform the requested action."


class AttributeLimitExceededException(ModelledError):
    """More than ten custom attributes for one resource."""


class BlockedException(ModelledError):
    """The account was blocked."""


class ClientException(ModelledError):
    """The caller did something that cannot be done, such as naming what does not exist."""


class ClusterContainsCapacityProviderException(ModelledError):
    """The cluster still has a capacity provider."""


class ClusterContainsContainerInstancesException(ModelledError):
    """The cluster still has container instances."""

    usual = "The Cluster cannot be deleted while Container Instances are active or draining."


class ClusterContainsServicesException(ModelledError):
    """The cluster still has services."""

    usual = "The Cluster cannot be deleted while Services are active."


class ClusterContainsTasksException(ModelledError):
    """The cluster still has tasks."""

    usual = "The Cluster cannot be deleted while Tasks are active."


class ClusterNotFoundException(ModelledError):
    """There is no such cluster."""

    usual = "Cluster not found."


class ConflictException(ModelledError):
    """A client token was used before with other parameters; member `resourceIds`."""


class InvalidParameterException(ModelledError):
    """A parameter is not valid."""


class LimitExceededException(ModelledError):
    """A limit was exceeded."""


class MissingVersionException(ModelledError):
    """ECS cannot tell the version of a container agent."""


class NamespaceNotFoundException(ModelledError):
    """There is no such Cloud Map namespace."""


class NoUpdateAvailableException(ModelledError):
    """The container agent is the newest already."""


class PlatformTaskDefinitionIncompatibilityException(ModelledError):
    """The platform version does not have what the task definition needs."""


class PlatformUnknownException(ModelledError):
    """There is no such platform version."""

    usual = "The specified platform does not exist."


class ResourceInUseException(ModelledError):
    """The resource is in use and cannot be removed."""


class ResourceNotFoundException(ModelledError):
    """There is no such resource."""


class ServerException(ModelledError):
    """A fault of the server; SDKs try again."""

    http_status = 500


class ServiceDeploymentNotFoundException(ModelledError):
    """There is no such service deployment."""


class ServiceNotActiveException(ModelledError):
    """The service is not ACTIVE."""

    usual = "Service was not ACTIVE."


class ServiceNotFoundException(ModelledError):
    """There is no such service."""

    usual = "Service not found."


class TargetNotConnectedException(ModelledError):
    """ExecuteCommand cannot reach its target."""


class TargetNotFoundException(ModelledError):
    """There is no such target."""


class TaskSetNotFoundException(ModelledError):
    """There is no such task set."""


class UnsupportedFeatureException(ModelledError):
    """The feature is not supported in this region."""


class UpdateInProgressException(ModelledError):
    """The container agent is being updated already."""


class SerializationException(ModelledError):
    """A member of the request has the wrong JSON type."""


class UnknownOperationException(ModelledError):
    """There is no such operation."""


class NotImplementedOperation(EcsError):
    """An operation of the model that is not built yet; HTTP 501, `NotImplemented`."""

    def __init__(self, message: str) -> None:
        super().__init__("NotImplemented", message, 501)
