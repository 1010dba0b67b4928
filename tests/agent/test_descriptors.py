"""At its start the agent may open as many files as it is let."""

from __future__ import annotations

import resource

import pytest

from kecs.agent import daemon


@pytest.mark.parametrize(
    ("soft", "hard", "set_to"),
    [
        (256, 4096, (4096, 4096)),
        (1024, resource.RLIM_INFINITY, (daemon.DESCRIPTORS, resource.RLIM_INFINITY)),
        (4096, 4096, None),
        (resource.RLIM_INFINITY, resource.RLIM_INFINITY, None),
    ],
)
def test_the_limit_is_raised_and_never_lowered(monkeypatch, soft, hard, set_to):
    seen: list[tuple[int, int]] = []
    monkeypatch.setattr(daemon.resource, "getrlimit", lambda _what: (soft, hard))
    monkeypatch.setattr(daemon.resource, "setrlimit", lambda _what, limits: seen.append(limits))
    daemon._allow_many_descriptors()

    assert seen == ([] if set_to is None else [set_to])
