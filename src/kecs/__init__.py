"""KECS: Amazon ECS on your own machine, reachable through port forwards that do not die."""

__version__ = "0.1.0"
