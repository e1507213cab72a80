"""Where the workers of a campaign run: SLURM jobs as a site file describes them, or processes of this machine.

Scheduler and workers talk over TLS with a key of this campaign alone, which only this user can read: whoever could talk
to the scheduler could run programs.
"""

import logging
import os
import subprocess
import tempfile
import tomllib
from contextlib import contextmanager
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from hamscope.errors import UserError

LOOPBACK = "127.0.0.1"
# SLURM or the machine limits the memory.  Dask would divide that of a job between its workers, pause one at 80 % of its
# share and end it at 95 %, time and again.
MEMORY = ("terminate", "pause", "spill", "target")


class Site(BaseModel):
    """What a SLURM job of one worker asks for; the keys of a site file."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    partition: str | None = None
    account: str | None = None
    walltime: str = "01:00:00"
    cores: int = Field(1, ge=1)
    memory: str = Field("2GB", pattern=r"^[0-9.]+ ?[kMGT]i?B$")
    interface: str | None = None
    job_script_prologue: tuple[str, ...] = Field((), strict=False)
    job_extra_directives: tuple[str, ...] = Field((), strict=False)


def load_site(path: str | Path) -> Site:
    """Read and check a site file (TOML).

    Raises
    ------
    UserError
        It cannot be read, or a value in it is none.
    """
    try:
        return Site(**tomllib.loads(Path(path).read_text()))
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); give the path of a site file") from None
    except ValueError as error:
        if not isinstance(error, ValidationError):
            raise UserError(f"{path}: is not TOML: {error}") from None
        known = ", ".join(Site.model_fields)
        mistakes = "; ".join(f"{'.'.join(map(str, e['loc']))} = {e['input']}: {e['msg']}" for e in error.errors())
        raise UserError(f"{path}: {mistakes}; the keys are {known}") from None


def check_here() -> None:
    """UserError where dask is missing, or there is more than one rank."""
    try:
        import dask_jobqueue  # noqa: F401
        import distributed  # noqa: F401
    except ImportError as error:
        raise UserError(f'campaign: {error.name} is missing; pip install "hamscope[campaign]"') from None
    if max(int(os.environ.get(name, 1)) for name in ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE")) > 1:
        raise UserError("campaign: starts its workers itself; start it without mpiexec or srun")


@contextmanager
def start_cluster(site: Site | None, jobs: int, folder: Path):
    """A dask client of `jobs` workers, or of up to so many SLURM jobs; `folder` is shared by all nodes.

    Raises
    ------
    UserError
        SLURM would not take such a job.
    """
    import dask
    from distributed import Client, LocalCluster
    from distributed.security import Security

    settings = {"distributed.scheduler.allowed-failures": 3, "distributed.scheduler.worker-saturation": 1.0}
    settings |= {f"distributed.worker.memory.{what}": False for what in MEMORY}
    logging.getLogger("distributed").setLevel(logging.CRITICAL)
    with tempfile.TemporaryDirectory(prefix="hamscope-") as scratch, dask.config.set(settings):
        security = Security.temporary()
        if site is None:
            cluster = LocalCluster(
                n_workers=jobs, threads_per_worker=1, processes=True, host=LOOPBACK, protocol="tls://",
                dashboard_address=f"{LOOPBACK}:0", security=security, memory_limit=0, local_directory=scratch,
                silence_logs=logging.CRITICAL,
            )  # fmt: skip
        else:
            cluster = _slurm(site, jobs, folder, security)
        try:
            with cluster, Client(cluster, security=security) as client:
                yield client
        finally:
            # dask-jobqueue keeps the temporary files of the keys open until it is forgotten, after their folder.
            for value in list(vars(cluster).values()):
                if isinstance(value, tempfile._TemporaryFileWrapper):
                    value.close()


def _slurm(site: Site, jobs: int, folder: Path, security):
    """Up to `jobs` SLURM jobs, as many as there is work for."""
    from dask_jobqueue import SLURMCluster

    private = folder / "dask"
    private.mkdir(mode=0o700, exist_ok=True)
    os.chmod(private, 0o700)
    # The workers are started by the job script, which knows nothing of the settings here.
    unlimited = [f"export DASK_DISTRIBUTED__WORKER__MEMORY__{what.upper()}=False" for what in MEMORY]
    try:
        cluster = SLURMCluster(
            queue=site.partition, account=site.account, walltime=site.walltime, cores=site.cores,
            processes=site.cores, memory=site.memory, interface=site.interface, job_name="hamscope",
            job_script_prologue=[*unlimited, *site.job_script_prologue], log_directory=str(private),
            job_extra_directives=list(site.job_extra_directives), worker_extra_args=["--no-dashboard"],
            security=security, shared_temp_directory=str(private), silence_logs=logging.CRITICAL,
            scheduler_options={"dashboard_address": f"{LOOPBACK}:0"},
        )  # fmt: skip
    except (OSError, ValueError) as error:
        raise UserError(f"the cluster cannot be started: {error}; mend the site file") from None
    try:
        _try_script(cluster.job_script())
    except BaseException:
        cluster.close()
        raise
    # A job for every item that waits or runs, whatever dask believes it will take: it knows no item of this size yet.
    cluster.adapt(minimum_jobs=1, maximum_jobs=jobs, interval="2s", target_duration="1ms")
    return cluster


def _try_script(script: str) -> None:
    """UserError where SLURM would refuse the job."""
    try:
        done = subprocess.run(["sbatch", "--test-only"], input=script, capture_output=True, text=True)
    except OSError as error:
        raise UserError(f"sbatch: {error.strerror}; start the campaign where SLURM is, or without --site") from None
    if done.returncode:
        raise UserError(f"SLURM refuses the jobs: {' '.join(done.stderr.split())}; mend the site file")
