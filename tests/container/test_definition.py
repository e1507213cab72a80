"""containers/hamscope.def without Apptainer: its structure, its files, its scripts through shellcheck.

`make test-container` runs its %files, %post and %test in a chroot.
"""

import shutil
import subprocess
import tomllib

import pytest
from container.definition import SCRIPTS, pairs, read_definition
from engines import ROOT, missing

FILE = ROOT / "containers" / "hamscope.def"


@pytest.fixture(scope="module")
def definition():
    return read_definition(FILE)


def test_what_is_copied_is_what_is_versioned(definition):
    """Every source of %files is tracked by git, and what hpc/setup.sh and hatchling read is among them.

    Seen to fail with a line for a folder that does not exist.
    """
    copied = dict(pairs(definition.sections["files"]))
    for source, place in copied.items():
        assert (ROOT / source).exists() and place == f"/opt/hamscope-source/{source}"
    assert {"src", "hpc", "configs", "pyproject.toml", "constraints.txt", "README.md", "LICENSE"} <= set(copied)


def test_labels_and_version(definition):
    """OCI labels, with the version and licence of pyproject.toml.  Seen to fail with another version."""
    labels = dict(pairs(definition.sections["labels"]))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    image = "org.opencontainers.image"
    assert labels[f"{image}.version"] == project["version"] and labels[f"{image}.licenses"] == project["license"]
    assert labels[f"{image}.title"] == project["name"] and labels[f"{image}.description"]


def test_the_environment_keeps_the_home_of_the_user_out(definition):
    """Packages in the user's home, which Apptainer binds, are not imported; the command is on the path."""
    assert "export PYTHONNOUSERSITE=1" in definition.sections["environment"]
    assert "export PATH=/opt/hamscope/bin:$PATH" in definition.sections["environment"]
    assert definition.sections["runscript"].strip() == 'exec hamscope "$@"'
    assert definition.header == {"bootstrap": "docker", "from": "debian:bookworm-slim"}


@pytest.mark.parametrize("name", SCRIPTS)
def test_scripts_are_sound(definition, name, tmp_path):
    """shellcheck finds nothing in them, as the POSIX shell that Apptainer runs them with.

    Seen to fail with an unquoted variable in %test.
    """
    if shutil.which("shellcheck") is None:
        missing("shellcheck", "apt-get install shellcheck")
    script = tmp_path / name
    script.write_text("#!/bin/sh\n" + definition.sections[name])
    done = subprocess.run(["shellcheck", "-s", "dash", str(script)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("text, why", [("%pots\n", "unknown"), ("%post\n%post\n", "twice"), ("Bootstrap\n", "no key")])
def test_a_wrong_definition_is_refused(tmp_path, text, why):
    """A misspelt or doubled section or a header without a colon: the line is named."""
    (tmp_path / "wrong.def").write_text(text)
    with pytest.raises(ValueError, match=why):
        read_definition(tmp_path / "wrong.def")
