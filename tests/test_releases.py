"""Old and new releases of every library, each in a folder of its own beside the installed ones.

``pytest -m full tests/test_releases.py`` installs them from the package index, and runs their file
of ``tests/releases``; against the installed releases, these run with all other tests. Those that
need an older Python are tried with ``tests/versions``.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Release:
    """One release of a library.

    Attributes:
        library: its name in the package index.
        version: which.
        test: the file of ``tests/releases``.
        needs: what else is installed beside it.
        python: before which Python it imports.
        without: files that are left out: what was compiled for another torch, and can be missing.
    """

    library: str
    version: str
    test: str = ""
    needs: tuple[str, ...] = ()
    python: tuple[int, int] = (4, 0)
    without: str = ""

    def __str__(self) -> str:
        return f"{self.library}-{self.version}"


RELEASES = [
    Release("snntorch", "0.5.3"),
    Release("snntorch", "0.7.0"),
    Release("snntorch", "0.8.1"),
    Release("snntorch", "0.9.4"),
    Release("sinabs", "0.3.5", python=(3, 11)),
    Release("sinabs", "1.0.7", python=(3, 11)),
    Release("sinabs", "1.2.10"),
    Release("sinabs", "2.0.3"),
    Release("sinabs", "3.0.4"),
    Release("spikingjelly", "0.0.0.0.12"),
    Release("spikingjelly", "0.0.0.0.14"),
    Release("norse", "0.0.7.post1", without="norse_op*"),
    Release("norse", "1.0.0", without="norse_op*"),
    Release("braincog", "0.2.7.19", needs=("einops",)),
    Release("bindsnet", "0.3.4"),
    Release("snntorch-ternary", "0.1.3"),
    Release("exact-snn-nn", "3.2.3", "test_exact_snn.py"),
    Release("nir", "1.0.4", needs=("nirtorch==1.0",)),
    Release("rockpool", "2.9.2"),
    Release("rockpool", "3.1.0"),
    Release("brevitas", "0.13.4", needs=("dependencies==2.0.1", "unfoldNd")),
]


@pytest.mark.full
@pytest.mark.parametrize("release", RELEASES, ids=str)
def test_a_release(release, tmp_path):
    if sys.version_info >= release.python:
        pytest.skip(
            f"{release} does not import in Python {sys.version_info[0]}.{sys.version_info[1]}"
        )
    wanted = [f"{release.library}=={release.version}", *release.needs]
    folder = tmp_path / "site-packages"  # as installed code is found
    install = ["-m", "pip", "install", "--quiet", "--no-deps", "--target", str(folder), *wanted]
    subprocess.run([sys.executable, *install], check=True)
    for file in folder.glob(release.without) if release.without else ():
        file.unlink()
    name = release.test or f"test_{release.library.replace('-', '_')}.py"
    passed, said = run(name, folder)
    assert passed > 0, said


def run(test: str, folder: Path) -> tuple[int, str]:
    """How many tests of a file pass, in a process of its own; none if one fails."""
    paths = [str(ROOT), str(folder)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-p", "no:xdist"]
    done = subprocess.run(
        [*command, f"tests/releases/{test}"],
        cwd=ROOT, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    found = re.search(r"(\d+) passed", done.stdout)
    failed = done.returncode != 0 or found is None
    return 0 if failed or found is None else int(found[1]), done.stdout[-3000:] + done.stderr[-500:]
