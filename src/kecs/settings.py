"""Environment and settings file, read once into frozen `Settings`.

Order: command line option (applied by the CLI) over environment over `settings.yaml` over default.
`docs/reference/settings.md` documents each; tests/test_docs.py checks that.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from kecs.errors import ExitCode, KecsError
from kecs.paths import InstancePaths, check_instance_name


@dataclass(frozen=True)
class Setting:
    """How one setting is named in the environment and in the file."""

    variable: str
    key: str
    default: float
    meaning: str


KNOBS: tuple[Setting, ...] = (
    Setting("KECS_HEALTHY_AFTER", "healthyAfter", 1.0,
            "seconds after RUNNING until a task without a health check counts as healthy"),
    Setting("KECS_READY_TIMEOUT", "readyTimeout", 30.0,
            "seconds until a task that does not listen is RUNNING all the same"),
    Setting("KECS_DRAIN", "drain", 5.0,
            "longest wait, in seconds, for open connections before a planned stop"),
    Setting("KECS_TIME_SCALE", "timeScale", 1.0,
            "multiplies healthyAfter, health-check intervals and stopTimeout"),
)  # fmt: skip
"""What `kecs start` keeps in `instance.yaml` under `knobs`."""


@dataclass(frozen=True)
class Settings:
    """What every command needs to know before it reads an instance."""

    home: Path
    """KECS_HOME, default `~/.kecs`; absolute."""
    instance: str
    """KECS_INSTANCE, default `default`."""
    runtime: str = "auto"
    """KECS_RUNTIME: what runs the tasks of a new instance when `kecs start` is not told; default `auto`."""

    def paths(self, instance: str | None = None) -> InstancePaths:
        """Return the paths of `instance`, or of the chosen one."""
        return InstancePaths(self.home, check_instance_name(instance or self.instance))


def load(environment: Mapping[str, str] | None = None) -> Settings:
    """Read the environment."""
    env = os.environ if environment is None else environment
    home = env.get("KECS_HOME") or str(Path(env.get("HOME") or "~").expanduser() / ".kecs")
    return Settings(
        home=Path(home).expanduser().absolute(),
        instance=env.get("KECS_INSTANCE") or "default",
        runtime=env.get("KECS_RUNTIME") or "auto",
    )


def knobs(settings: Settings, environment: Mapping[str, str] | None = None) -> dict[str, float]:
    """Return the knobs that `settings.yaml` or the environment set, by key, in their units."""
    from kecs import files

    env = os.environ if environment is None else environment
    document = files.read_yaml(settings.home / "settings.yaml", version=1) or {}
    unknown = set(document) - {"version"} - {setting.key for setting in KNOBS}
    if unknown:
        raise KecsError(
            f"`{settings.home / 'settings.yaml'}` has an unknown setting `{min(unknown)}`",
            f"known ones are {', '.join(f'`{setting.key}`' for setting in KNOBS)}",
            ExitCode.USAGE,
        )
    found: dict[str, float] = {}
    for setting in KNOBS:
        raw = env.get(setting.variable, document.get(setting.key))
        if raw is None or raw == "":
            continue
        try:
            value = float(raw)
        except (TypeError, ValueError):
            value = -1.0
        if not 0 <= value <= 86400:
            raise KecsError(
                f"`{raw}` is no value for {setting.variable} ({setting.meaning})",
                "give a number from 0 to 86400",
                ExitCode.USAGE,
            )
        found[setting.key] = value
    return found
