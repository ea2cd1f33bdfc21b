"""A counter under ``torch.compile``: the replay is compiled, with the sums of its events in it.

    counted(…)              what the compiler sees in place of a forward
      ├─ begin(args, …)     not compiled: which replay it is, analyzed if it is new
      ├─ run(…)             compiled, by whatever compiler has come here
      └─ commit(…)          not compiled: the pass is added to the counts

Imported when there is a compiler already: ``torch.compiler.disable`` takes it in, and that takes
most of a second.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from fxsynops.counting.exact_sums import Tally
from fxsynops.counting.replay import Replay


@torch.compiler.disable(recursive=False)  # type: ignore[untyped-decorator]
def counted(
    begin: Callable[..., Any],
    commit: Callable[[Replay, Tally], None],
    forward: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> Any:
    """A forward, of which all but the beginning and the end may be compiled.

    Args:
        begin: tells the replay of the arguments, its function for a compiler if it has one, and
            what that takes.
        commit: adds what has been counted.
        forward: does all of it, for a replay that has no such function.
        args, kwargs: of the forward.
    """
    replay, run, values = _as_it_is(begin, args, kwargs)
    if run is None:
        return _as_it_is(forward, *args, **kwargs)
    output, taken = run(*values)
    _as_it_is(lambda: commit(replay, replay.tally(taken)))
    return output


@torch.compiler.disable  # type: ignore[untyped-decorator]
def _as_it_is(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    return function(*args, **kwargs)
