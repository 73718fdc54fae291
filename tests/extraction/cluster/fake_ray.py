"""A stand-in for the package ray that runs actors in this process, at once; only what mesm uses."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

import pytest


class RayError(Exception):
    pass


class ActorDiedError(RayError):
    pass


class OutOfMemoryError(RayError):
    pass


class RayTaskError(RayError):
    def __init__(self, cause: Exception) -> None:
        super().__init__(str(cause))
        self.cause = cause


class Ref:
    """The result of a call: a value, or an exception."""

    def __init__(self, call: Callable[[], Any]) -> None:
        self.value, self.error = None, None
        try:
            self.value = call()
        except RayError as error:
            self.error = error
        except Exception as error:
            self.error = RayTaskError(error)


class Actor:
    def __init__(self, ray: FakeRay, made: Any, options: dict[str, Any]) -> None:
        self._ray, self._made, self.options = ray, made, options

    def __getattr__(self, name: str) -> Any:
        def remote(*arguments: Any) -> Ref:
            def call() -> Any:
                self._ray.calls.append((name, arguments))
                if self._ray.failures.get(name):
                    raise self._ray.failures[name].pop(0)
                return getattr(self._made, name)(*arguments)

            return Ref(call)

        return type("Method", (), {"remote": staticmethod(remote)})


class FakeRay(ModuleType):
    """``nodes_``: as Ray describes them; ``failures``: by method, errors that the next calls raise."""

    def __init__(self) -> None:
        super().__init__("ray")
        self.nodes_ = [
            {"NodeID": "n1", "NodeManagerHostname": "one", "Alive": True, "Resources": {"CPU": 2.0}},
            {"NodeID": "n2", "NodeManagerHostname": "two", "Alive": False, "Resources": {"CPU": 2.0}},
        ]
        self.failures: dict[str, list[Exception]] = {}
        self.calls: list[tuple[str, tuple[Any, ...]]] = []
        self.inits: list[dict[str, Any]] = []
        self.init_error: Exception | None = None
        self.actors: list[Actor] = []
        self.killed = self.shutdowns = 0
        self.exceptions = ModuleType("ray.exceptions")
        for kind in (RayError, ActorDiedError, OutOfMemoryError, RayTaskError):
            setattr(self.exceptions, kind.__name__, kind)

    def init(self, **options: Any) -> None:
        self.inits.append(options)
        if self.init_error is not None:
            raise self.init_error

    def shutdown(self) -> None:
        self.shutdowns += 1

    def nodes(self) -> list[dict[str, Any]]:
        return self.nodes_

    def get_runtime_context(self) -> Any:
        return type("Context", (), {"gcs_address": "node1:6379"})

    def remote(self, kind: type) -> Any:
        def options(**given: Any) -> Any:
            def remote() -> Actor:
                self.actors.append(Actor(self, kind(), given))
                return self.actors[-1]

            return type("Class", (), {"remote": staticmethod(remote)})

        return type("Class", (), {"options": staticmethod(options)})

    def wait(self, refs: Sequence[Ref], *, timeout: float) -> tuple[list[Ref], list[Ref]]:
        return list(refs[:1]), list(refs[1:])

    def get(self, ref: Ref) -> Any:
        if ref.error is not None:
            raise ref.error
        return ref.value

    def kill(self, actor: Actor) -> None:
        self.killed += 1


def install(monkeypatch: pytest.MonkeyPatch) -> FakeRay:
    """Replace the package ray."""
    ray = FakeRay()
    strategies: Any = ModuleType("ray.util.scheduling_strategies")
    strategies.NodeAffinitySchedulingStrategy = lambda node, soft: (node, soft)
    for name, module in {"ray": ray, "ray.util": ModuleType("ray.util"), strategies.__name__: strategies}.items():
        monkeypatch.setitem(sys.modules, name, module)
    return ray
