"""The distribution: wheel and source archive built, installed into an environment of its own, and used from there."""

import importlib.metadata
import os
import subprocess
import sys
import tarfile
import tomllib
import venv
import zipfile
from pathlib import Path

import numpy
import pytest
import yaml
from engines import ROOT
from packaging.specifiers import SpecifierSet

import hamscope


def test_all_that_is_pinned_runs_on_the_python_of_debian_12():
    """3.11.2, though a newer one may run this.  Seen to fail with pymdown-extensions 13.1.2, which wants 3.11.5."""
    wanted = {one.name: one.metadata.get("Requires-Python") for one in importlib.metadata.distributions()}
    assert len(wanted) > 50
    assert not [name for name, wants in wanted.items() if wants and "3.11.2" not in SpecifierSet(wants)]


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The folder with the source archive and the wheel that was made from it."""
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, cwd=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def clean_python(folder: Path) -> Path:
    """The Python of an environment without hamscope, where the other libraries of this one can be imported."""
    venv.create(folder, with_pip=True)
    [site] = folder.glob("lib/python3*/site-packages")
    # A folder that is named here is searched, but its own .pth files, of which one is hamscope's here, are not read.
    (site / "others.pth").write_text(f"{Path(numpy.__file__).parent.parent}\n")
    return folder / "bin" / "python"


def test_the_wheel_works_where_there_is_no_clone(built, tmp_path):
    """Installed into a clean environment, started in an empty folder: a film, the default bundle, a report.

    Seen to fail with the templates, and with the bundles, left out of the wheel.
    """
    python, [wheel] = clean_python(tmp_path / "env"), built.glob("*.whl")
    command = [python, "-m", "pip", "install", "-q", "--no-deps", "--no-index", wheel]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    work = tmp_path / "work"
    work.mkdir()
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}

    def run(*arguments: str) -> str:
        program = tmp_path / "env" / "bin" / "hamscope"
        done = subprocess.run(
            [program, *arguments], capture_output=True, text=True, timeout=240, cwd=work, env=environment
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    code = "import hamscope, hamscope_hpc; print(hamscope.__file__); print(hamscope_hpc.__file__)"
    where = subprocess.run([python, "-c", code], capture_output=True, text=True, cwd=work, env=environment).stdout
    assert all(line.startswith(str(tmp_path)) for line in where.splitlines()) and where
    others = (ROOT / "configs" / "tiny.toml").read_text().partition("[[film]]")[0]
    film = 'name = "noise"\nmodel = "P-2D"\nparameter = 0.59\nsize = 128\nframes = 1\nseed = 7\n'
    (work / "c.toml").write_text(f"{others}[[film]]\n{film}")
    run("film", "c.toml", "--out", "noise.tif")
    assert "noise.tif" in run("classify", "noise.tif", "--stride", "16", "--threshold", "128", "--out", "results.h5")
    assert "index.html" in run("report", "results.h5", "--out", "report")


def test_what_is_in_the_archives(built):
    """All that is versioned is in the source archive; the wheel has the packages alone, and less than 20 MB."""
    [archive], [wheel] = built.glob("*.tar.gz"), built.glob("*.whl")
    with tarfile.open(archive) as file:
        inside = {name.partition("/")[2] for name in file.getnames()}
    done = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    if done.returncode == 0:
        tracked = {name for name in done.stdout.splitlines() if (ROOT / name).exists()}
        assert not tracked - inside
    assert not [name for name in inside if name.startswith((".venv", "demo", "build", ".git/"))]
    with zipfile.ZipFile(wheel) as file:
        tops = {name.partition("/")[0] for name in file.namelist()}
        assert any(name.endswith("LICENSE") for name in file.namelist())
    assert tops == {"hamscope", "hamscope_hpc", f"hamscope-{hamscope.__version__}.dist-info"}
    assert wheel.stat().st_size < 20e6


def test_version_and_licence_are_the_same_everywhere():
    """pyproject.toml, the package, CITATION.cff and the changelog name one version.  Seen to fail with another one."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert project["version"] == hamscope.__version__ == citation["version"]
    assert project["license"] == citation["license"]
    assert f"## {project['version']}" in (ROOT / "CHANGELOG.md").read_text()
