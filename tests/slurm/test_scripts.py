"""The job scripts as texts, and what they say before anything runs: shellcheck, sites, the container."""

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
from engines import ROOT, missing

SCRIPTS = sorted([*ROOT.glob("slurm/*.sh"), *ROOT.glob("slurm/*.sbatch"), *ROOT.glob("slurm/sites/*.sh")])


def bash(script: str, **environment: str) -> subprocess.CompletedProcess:
    """Run lines of bash that see slurm/common.sh."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("SLURM_", "HAMSCOPE_"))}
    return subprocess.run(
        ["bash", "-c", f"set -euo pipefail; source slurm/common.sh; {script}"],
        cwd=ROOT, env=kept | {"HAMSCOPE_HOME": str(ROOT)} | environment, capture_output=True, text=True, timeout=60,
    )  # fmt: skip


def test_shellcheck():
    if shutil.which("shellcheck") is None:
        missing("shellcheck", "apt-get install shellcheck")
    assert len(SCRIPTS) >= 8
    done = subprocess.run(["shellcheck", "-x", *SCRIPTS], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("script", [path for path in SCRIPTS if path.suffix == ".sbatch"], ids=lambda path: path.name)
def test_a_job_script_names_resources_and_no_account(script):
    text = script.read_text()
    for word in ("--time", "--nodes", "--requeue", "--signal=B:USR1@"):
        assert f"#SBATCH {word}" in text
    assert "account" not in text and "partition" not in text and "set -euo pipefail" in text


def test_a_site_that_is_not_there_is_named_with_those_that_are():
    done = bash("load_site", HAMSCOPE_SITE="atlantis")
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1
    assert "HAMSCOPE_SITE=atlantis" in done.stderr and "example test" in done.stderr


def test_signals_at_any_moment_end_no_script(tmp_path):
    """Hundreds of them, while SLURM is asked again and again.

    Seen to fail with $(squeue ...): bash 5.2 ran the trap while it parsed that, and ended with a syntax error.
    """
    script = """set -euo pipefail; source slurm/common.sh; trap 'hear TERM' TERM; squeue() { echo RUNNING; }; echo ready
while [ -e "$0" ]; do still_runs; done; echo "$slurm_state $signals" """
    go_on = tmp_path / "go-on"
    go_on.touch()
    process = subprocess.Popen(
        ["bash", "-c", script, str(go_on)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "ready\n"
    for _ in range(1000):
        process.send_signal(signal.SIGTERM)
        time.sleep(0.003)
    go_on.unlink()
    out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, "")
    state, count = out.split()
    assert state == "RUNNING" and int(count) > 20


def fake_apptainer(folder: Path, version: str) -> str:
    """A stand-in for apptainer, which the test machines do not have: it knows its MPI and shows how it was called."""
    program = folder / "apptainer"
    program.write_text(f"""#!/bin/sh
case "$*" in *"mpiexec --version") echo "mpiexec (OpenRTE) {version}";; *) echo "apptainer $*";; esac
""")
    program.chmod(0o755)
    outside = folder / "mpiexec"
    outside.write_text("#!/bin/sh\necho 'mpiexec (OpenRTE) 4.1.4'\n")
    outside.chmod(0o755)
    return f"{folder}:{os.environ['PATH']}"


@pytest.mark.parametrize(("version", "status"), [("4.0.3", 0), ("5.0.1", 2)])
def test_the_mpi_of_the_container_is_that_of_the_cluster(tmp_path, version, status):
    """Major versions are compared; only the command line of a stand-in is seen here, no container runs."""
    image = tmp_path / "h.sif"
    image.touch()
    done = bash(
        f'enter_container {tmp_path}; check_container_mpi; "${{prefix[@]}}" hamscope simulate',
        HAMSCOPE_CONTAINER=str(image), PATH=fake_apptainer(tmp_path, version), SLURM_GPUS_ON_NODE="2", SLURM_JOB_ID="1",
    )  # fmt: skip
    assert done.returncode == status, done.stderr
    if status:
        assert done.stderr.count("\n") == 1 and "container has Open MPI 5 and this cluster Open MPI 4" in done.stderr
    else:
        assert done.stdout.split() == [
            "apptainer", "exec", "--bind", str(ROOT), "--bind", str(tmp_path), "--bind", "/tmp", "--nv", str(image),
            "hamscope", "simulate",
        ]  # fmt: skip


def test_a_container_that_is_not_there_is_named(tmp_path):
    done = bash("enter_container", HAMSCOPE_CONTAINER=str(tmp_path / "none.sif"))
    assert done.returncode == 2 and "none.sif: cannot be read" in done.stderr
