"""The command itself: help at once, mistakes in one line with exit 2, never a traceback."""

import subprocess
import sys

import pytest
from engines import ROOT, hamscope

TINY = str(ROOT / "configs" / "tiny.toml")


def test_help_needs_no_engine():
    """`hamscope --help` imports neither torch nor Ray nor MPI, so it is there at once."""
    code = (
        "import sys; from hamscope_hpc import cli\n"
        "try: cli.hamscope.main(['--help'], standalone_mode=False)\n"
        "finally: print([m for m in ('torch', 'ray', 'mpi4py', 'numba') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.rstrip().endswith("[]"), done.stdout + done.stderr
    for command in ("simulate", "train", "classify", "report", "check", "film", "run"):
        assert command in done.stdout


@pytest.mark.parametrize(
    "arguments, reason",
    [
        (["simulate", "none.toml", "--out", "{tmp}/a.h5"], "none.toml: cannot be read"),
        (["train", TINY, "{tmp}/none.h5", "--out", "{tmp}/bundle"], "none.h5: no such file"),
        (["train", TINY, "{tmp}/text", "--out", "{tmp}/bundle"], "not HDF5"),
        (["classify", "{tmp}/text", "--bundle", "{tmp}/none", "--out", "{tmp}/r.h5"], "none"),
        (["classify", "x", "--bundle", "b", "--out", "r.h5", "--threshold", "high"], "write otsu, median or a number"),
        (["classify", "x", "--out", "r.h5", "--psf-px", "nan"], "--psf-px nan: write a number of pixels"),
        (["report", "{tmp}/none.h5", "--out", "{tmp}/report"], "none.h5: no such file"),
        (["report", "{tmp}/text", "--out", "{tmp}/report"], "not HDF5"),
        (["run", TINY, "--out", "{tmp}/none/out"], "does not exist"),
        (["film", "{tmp}/text", "--out", "{tmp}/film"], "is not TOML"),
        (["simulate", TINY], "--out"),
        (["simulatte", TINY], "simulatte"),
    ],
)
def test_a_mistake_is_said_in_one_line_with_exit_2(tmp_path, arguments, reason):
    """Nothing is written, there is no traceback, and the line names what is wrong."""
    (tmp_path / "text").write_text("neither TOML nor HDF5")
    done = hamscope(*[argument.format(tmp=tmp_path) for argument in arguments], timeout=60)
    assert done.returncode == 2, done.stderr
    assert reason in done.stderr and "Traceback" not in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["text"]


def test_a_failure_of_ours_is_no_mistake_of_the_user(tmp_path):
    """An unexpected exception gives status 1 and its traceback, so that it can be reported."""
    script = tmp_path / "fail.py"
    script.write_text(
        "import sys; from hamscope_hpc import cli; import hamscope.report\n"
        "def failing(*_, **__): raise ZeroDivisionError('planted')\n"
        "hamscope.report.write_report = failing\n"
        "sys.argv = ['hamscope', 'report', 'x', '--out', 'y']; cli.main()\n"
    )
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1 and "failed: ZeroDivisionError('planted')" in done.stderr and "Traceback" in done.stderr
