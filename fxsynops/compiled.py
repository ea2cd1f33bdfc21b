"""A counter under ``torch.compile``: the replay is compiled, with the sums of its events in it.

    counted(counter, args, kwargs)      what the compiler sees in place of a forward
      ├─ _begin(…)                      not compiled: which replay it is, analyzed if it is new
      ├─ run(…)                         compiled, by whatever compiler has come here
      └─ _end(…)                        not compiled: the pass is committed

Imported when there is a compiler already: ``torch.compiler.disable`` takes it in, and that takes
most of a second.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from fxsynops.counting.measured_nodes import Pass
from fxsynops.counting.replay import Replay

if TYPE_CHECKING:
    from fxsynops.counter import SynOpsCounter


@torch.compiler.disable(recursive=False)  # type: ignore[untyped-decorator]
def counted(counter: SynOpsCounter, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """A forward, of which all but the beginning and the end may be compiled."""
    replay, run, values = _begin(counter, args, kwargs)
    if run is None:
        return _uncompiled(counter, args, kwargs)
    output, taken = run(*values)
    _end(counter, replay, taken)
    return output


@torch.compiler.disable  # type: ignore[untyped-decorator]
def _begin(counter: SynOpsCounter, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """The replay of these inputs, its function if it can be compiled, and what that takes."""
    args, kwargs, values = counter.bound(args, kwargs)
    replay = counter.replay_for(args, kwargs)
    return replay, replay.compilable(), values


@torch.compiler.disable  # type: ignore[untyped-decorator]
def _end(counter: SynOpsCounter, replay: Replay, taken: Pass) -> None:
    counter.commit(replay, replay.tally(taken))


@torch.compiler.disable  # type: ignore[untyped-decorator]
def _uncompiled(counter: SynOpsCounter, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """A forward as it is."""
    return counter.forward(*args, **kwargs)
