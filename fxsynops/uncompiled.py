"""A counter under ``torch.compile``, which leaves it out.

Imported when there is a compiler already: ``torch.compiler.disable`` takes it in, and that takes
most of a second.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from fxsynops.counter import SynOpsCounter


@torch.compiler.disable  # type: ignore[untyped-decorator]
def uncompiled(counter: SynOpsCounter, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """A forward as it is."""
    return counter.forward(*args, **kwargs)
