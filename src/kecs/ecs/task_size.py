"""The cpu and memory of a task: what can be written, and which pairs Fargate has.

Source: API reference, RegisterTaskDefinition, `cpu` and `memory`.
"""

from __future__ import annotations

import re
from decimal import Decimal

from kecs.ecs.errors import ClientException

_GIB = 1024
_CPU = re.compile(r"(\d+)|(\d*\.?\d+)\s*vcpu", re.IGNORECASE)
_MEMORY = re.compile(r"(\d+)|(\d*\.?\d+)\s*gb", re.IGNORECASE)
SMALLEST_CPU, LARGEST_CPU = 128, 196608
"""CPU units of a task on EC2."""

_FARGATE: dict[int, tuple[int, ...]] = {
    256: (512, 1 * _GIB, 2 * _GIB),
    512: tuple(range(1 * _GIB, 4 * _GIB + 1, _GIB)),
    1024: tuple(range(2 * _GIB, 8 * _GIB + 1, _GIB)),
    2048: tuple(range(4 * _GIB, 16 * _GIB + 1, _GIB)),
    4096: tuple(range(8 * _GIB, 30 * _GIB + 1, _GIB)),
    8192: tuple(range(16 * _GIB, 60 * _GIB + 1, 4 * _GIB)),
    16384: tuple(range(32 * _GIB, 120 * _GIB + 1, 8 * _GIB)),
}
"""Memory in MiB that goes with so many CPU units."""


def cpu_units(text: str) -> str:
    """Return CPU units, given them or `.5 vCPU`; raises ClientException."""
    units = _units(_CPU, text, _GIB)
    if units is None or not SMALLEST_CPU <= units <= LARGEST_CPU:
        raise ClientException(
            f"Invalid 'cpu' setting for task: '{text}'. It is CPU units between {SMALLEST_CPU} and "
            f"{LARGEST_CPU}, or vCPUs such as '.5 vCPU'."
        )
    return str(units)


def memory_mib(text: str) -> str:
    """Return MiB, given them or `1 GB`; raises ClientException."""
    mib = _units(_MEMORY, text, _GIB)
    if mib is None or mib < 1:
        raise ClientException(
            f"Invalid 'memory' setting for task: '{text}'. It is MiB such as '512', or GB such as '1 GB'."
        )
    return str(mib)


def is_fargate_pair(cpu: str | None, memory: str | None) -> bool:
    """Tell whether Fargate has tasks of this size."""
    return cpu is not None and memory is not None and int(memory) in _FARGATE.get(int(cpu), ())


def check_fargate(cpu: str | None, memory: str | None) -> None:
    """Raise ClientException unless Fargate has tasks of this size."""
    for name, value in (("cpu", cpu), ("memory", memory)):
        if value is None:
            raise ClientException(f"Fargate requires that '{name}' be defined at the task level.")
    if not is_fargate_pair(cpu, memory):
        raise ClientException(
            f"No Fargate configuration exists for given values: {cpu} CPU, {memory} memory. "
            "See the Amazon ECS documentation for the valid values."
        )


def _units(pattern: re.Pattern[str], text: str, factor: int) -> int | None:
    match = pattern.fullmatch(text.strip())
    if match is None:
        return None
    if match[1]:
        return int(match[1]) if len(match[1]) < 10 else None
    scaled = Decimal(match[2]) * factor
    return int(scaled) if scaled == scaled.to_integral_value() and scaled < 10**9 else None
