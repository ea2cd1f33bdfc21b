"""Notes on a node: what its value is, where it comes from, under which modes it ran."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from types import CodeType

import torch

from fxsynops.tracing.torch_api import parameters_of

HERE = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep  # the package
TORCH = os.path.dirname(os.path.abspath(torch.__file__)) + os.sep


@dataclass(frozen=True)
class TensorSpec:
    """Shape and dtype of a recorded tensor."""

    shape: torch.Size
    dtype: torch.dtype


@dataclass(frozen=True)
class Site:
    """Where in the source a node came from; equal for the same place in a loop.

    Attributes:
        module: path of the innermost module in whose forward the call stands ("" is the root).
        where: ``file:line`` of the user's own code, or of a library's if there is none, or "".
        code: the instruction of the innermost call.
    """

    module: str
    where: str
    code: tuple[CodeType, int] | None = None

    def __str__(self) -> str:
        place = f"in module '{self.module}'" if self.module else "in the model's forward"
        return f"{place} ({self.where})" if self.where else place


@dataclass(frozen=True)
class Mode:
    """Gradient and autocast mode that a node ran under."""

    grad: bool
    autocast: tuple[bool, torch.dtype]
    device: str

    @classmethod
    def now(cls, device: str) -> Mode:
        """The mode in force."""
        autocast = torch.is_autocast_enabled(device), torch.get_autocast_dtype(device)
        return cls(torch.is_grad_enabled(), autocast, device)


def main_device(model: torch.nn.Module) -> str:
    """The type of device that a model runs on, for its autocast mode."""
    devices = (p.device.type for p in parameters_of(model))
    return next((device for device in devices if device != "meta"), "cpu")


def site_below(bottom: CodeType, module: str) -> Site:
    """Where the code that runs now was called from, down to the frame that runs ``bottom``."""
    code = None
    where = library = ""
    frame = sys._getframe(1)
    while frame is not None and frame.f_code is not bottom:
        path = frame.f_code.co_filename
        if not path.startswith((HERE, TORCH, "<")):
            code = code or (frame.f_code, frame.f_lasti)
            line = f"{path}:{frame.f_lineno}"
            if "site-packages" not in path:
                where = line
                break
            library = library or line
        frame = frame.f_back  # type: ignore[assignment]
    return Site(module, where or library, code)


def called_by(name: str) -> str:
    """Whether torch's own code makes a call (a method of some name), or a "user"."""
    frame = sys._getframe(1)
    while frame is not None:
        path, inside = frame.f_code.co_filename, frame.f_code.co_name
        if not path.startswith((HERE, "<")) and inside not in (name, "handle_torch_function"):
            return "torch" if path.startswith(TORCH) else "user"
        frame = frame.f_back  # type: ignore[assignment]
    return "user"


def site_of(error: BaseException) -> str:
    """``file:line`` of the innermost frame outside of torch that ``error`` passed through."""
    where = ""
    traceback = error.__traceback__
    while traceback is not None:
        path = traceback.tb_frame.f_code.co_filename
        if not path.startswith((HERE, TORCH)):
            where = f"{path}:{traceback.tb_lineno}"
        traceback = traceback.tb_next
    return where
