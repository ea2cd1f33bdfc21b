"""A counter under ``torch.compile``: the replay is compiled, with the sums of its events in it.

    counted(counter, args, kwargs)      what the compiler sees in place of a forward
      ├─ _begin(…)                      not compiled: which replay it is, analyzed if it is new
      ├─ run(pass, …)                   compiled, by whatever compiler has come here
      └─ _end(…)                        not compiled: the pass is committed

Imported when there is a compiler already: ``torch.compiler.disable`` takes it in, and that takes
most of a second.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from fxsynops.counting.replay import Pass, Replay

if TYPE_CHECKING:
    from fxsynops.counter import SynOpsCounter


def counted(counter: SynOpsCounter, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """A forward, of which all but the beginning and the end may be compiled."""
    ready = _begin(counter, args, kwargs)
    if ready is None:
        return _uncompiled(counter, args, kwargs)
    replay, run, sums, values = ready
    taken = Pass([None] * sums)
    output = run(taken, *values)
    _end(counter, replay, taken.parts, taken.samples)
    return output


@torch.compiler.disable  # type: ignore[untyped-decorator]
def _begin(counter: SynOpsCounter, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """The replay of these inputs, its function and what that takes, if it can be compiled."""
    args, kwargs, values = counter.bound(args, kwargs)
    replay = counter.replay_for(args, kwargs)
    ready = replay.compilable()
    return None if ready is None else (replay, *ready, values)


@torch.compiler.disable  # type: ignore[untyped-decorator]
def _end(counter: SynOpsCounter, replay: Replay, parts: list[Any], samples: dict[int, Any]) -> None:
    counter.commit(replay, replay.tally(Pass(parts, samples)))


@torch.compiler.disable  # type: ignore[untyped-decorator]
def _uncompiled(counter: SynOpsCounter, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """A forward as it is."""
    return counter.forward(*args, **kwargs)
