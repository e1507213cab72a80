"""The architecture: imports go hpc -> src and never back; sim and data know neither each other nor torch."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
LIBRARY = ROOT / "src" / "hamscope"
ENGINES = {"mpi4py", "ray", "dask", "dask_jobqueue", "distributed", "hamscope_hpc"}


def imports(path: Path) -> set[str]:
    """Every module that a file imports anywhere, as dotted names; of `from a import b` both a and a.b."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


def offenders(folder: Path, forbidden: set[str]) -> list[str]:
    """Files below `folder` that import a forbidden package."""
    return [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in sorted(folder.rglob("*.py"))
        for name in sorted(imports(path))
        if any(name == f or name.startswith(f + ".") for f in forbidden)
    ]


@pytest.mark.parametrize(
    "folder, forbidden",
    [
        ("", ENGINES),
        ("sim", {"torch", "hamscope.data", "hamscope.learn", "hamscope.assess"}),
        ("data", {"torch", "hamscope.sim", "hamscope.learn", "hamscope.assess"}),
        ("learn", {"hamscope.sim", "hamscope.assess"}),
        ("assess", {"hamscope.report"}),
    ],
)
def test_imports_keep_their_direction(folder, forbidden):
    """Seen to fail with `import mpi4py` in sim/ising.py and with `from hamscope import data` in sim/lattice.py."""
    assert len(list((LIBRARY / folder).rglob("*.py"))) > 1
    assert offenders(LIBRARY / folder, forbidden) == []


def test_the_library_loads_without_the_engines():
    """With mpi4py, ray and dask hidden, every module of the library still imports."""
    modules = [
        ".".join(path.relative_to(ROOT / "src").with_suffix("").parts)
        for path in sorted(LIBRARY.rglob("*.py"))
        if path.name != "__init__.py"
    ]
    hide = "; ".join(f"sys.modules[{name!r}] = None" for name in sorted(ENGINES))
    code = f"import sys, importlib; {hide}; [importlib.import_module(name) for name in {modules!r}]"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
