"""The random generators that a forward may advance: torch's, Python's and NumPy's."""

from __future__ import annotations

import random
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import unset_fake_temporarily


def python_random_state() -> tuple[Any, ...]:
    """The state of Python's (and, if loaded, NumPy's) random generators, comparable with ==."""
    numpy = sys.modules.get("numpy")
    if numpy is None:
        return (random.getstate(),)
    name, keys, *rest = numpy.random.get_state()
    return (random.getstate(), name, keys.tobytes(), *rest)


def torch_random_state() -> bytes:
    """The state of torch's random generator on the CPU, comparable with ==."""
    with unset_fake_temporarily():
        return bytes(torch.get_rng_state().numpy().tobytes())


def is_alone() -> bool:
    """Whether no other thread can have drawn random numbers."""
    return threading.active_count() == 1


@dataclass(frozen=True)
class RandomStates:
    """The states of all random generators.

    Attributes:
        cpu, cuda: torch's.
        python, numpy: theirs; None if NumPy is not loaded.
        generators: others of torch's, and their states.
    """

    cpu: Tensor
    cuda: list[Tensor]
    python: Any
    numpy: Any
    generators: tuple[tuple[torch.Generator, Tensor], ...]

    @classmethod
    def save(cls, generators: list[torch.Generator]) -> RandomStates:
        """The states now."""
        numpy = sys.modules.get("numpy")
        return cls(
            torch.get_rng_state(),
            torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else [],
            random.getstate(),
            numpy.random.get_state() if numpy is not None else None,
            tuple((g, g.get_state()) for g in generators),
        )

    @classmethod
    @contextmanager
    def untouched(cls) -> Iterator[None]:
        """While the context lasts, what is drawn is not missed later."""
        before = cls.save([])
        try:
            yield
        finally:
            before.restore()

    def restore(self) -> None:
        """Make them what they were."""
        torch.set_rng_state(self.cpu)
        if self.cuda:
            torch.cuda.set_rng_state_all(self.cuda)
        random.setstate(self.python)
        if self.numpy is not None:
            sys.modules["numpy"].random.set_state(self.numpy)
        for generator, state in self.generators:
            generator.set_state(state)
