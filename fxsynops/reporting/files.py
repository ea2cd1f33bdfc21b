"""Files of users: TOML that is read, and text that is written as a whole or not at all."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from fxsynops.errors import InputError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


def read_toml(path: str | Path, what: str) -> dict[str, Any]:
    """The content of a TOML file.

    Args:
        path: of the file.
        what: it holds, for errors.

    Raises:
        InputError: it cannot be read, or is no TOML file.
    """
    try:
        return tomllib.loads(Path(path).read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise InputError(f"{what} '{path}' cannot be read: {error.strerror}.") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{what} '{path}' is no TOML file: {error}.") from None


def write_whole(path: str | os.PathLike[str], text: str) -> None:
    """Write a file; if that fails, it is as it was before, and nothing is left beside it.

    A file keeps its mode; a pipe or a device is written to.

    Raises:
        InputError: it cannot be written.
    """
    file = Path(path)
    try:
        if file.exists() and not file.is_file():
            file.write_text(text, encoding="utf-8")
            return
        file = file.resolve()
        beside = file.with_name(f".{file.name}.{os.getpid()}")
        try:
            beside.write_text(text, encoding="utf-8")
            if file.exists():
                beside.chmod(file.stat().st_mode)
            beside.replace(file)
        finally:
            beside.unlink(missing_ok=True)
    except OSError as error:
        raise InputError(f"'{file}' cannot be written: {error.strerror or error}.") from error
