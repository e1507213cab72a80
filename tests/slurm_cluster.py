"""A real, throw-away SLURM of two nodes on this machine: munge, slurmctld and two slurmd, all its own.

No systemd, no cgroups, no database; as root or as a plain user.  Everything lies in one folder with a short name, and
whatever is stopped is stopped by its process id.
"""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from getpass import getuser
from pathlib import Path

from engines import ROOT, missing

NODES, CPUS = 2, 4
POLL = 0.2
INSTALL = "apt-get install --no-install-recommends slurm-wlm munge"
DAEMON_PATH = f"{os.environ['PATH']}:/usr/sbin:/sbin"
# FirstJobId: the ports and folders of Ray come from the job id modulo 4000, and some of these clusters are up at once:
# 97 keeps apart those of process ids that lie near each other.
# cred_expire: a requeued job waits as long and a second more before it may start again; below 5 is refused.  Where a
# node went down, the step lives 6 s longer than its srun, and SLURM holds a job that it finds still there: so with 5.
# TmpFS: srun --mpi=pmix makes its folder there, and the slurmds of one host must not share it.
CONF = """\
ClusterName=hamscope
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket={lab}/munge.sock,cred_expire=8
StateSaveLocation={lab}/state
SlurmdSpoolDir={lab}/spool.%n
TmpFS={lab}/tmp.%n
SlurmctldPidFile={lab}/slurmctld.pid
SlurmdPidFile={lab}/slurmd.%n.pid
SlurmctldLogFile={lab}/slurmctld.log
SlurmdLogFile={lab}/slurmd.%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
DefMemPerCPU=500
SlurmdParameters=config_overrides
ReturnToService=2
SchedulerParameters=batch_sched_delay=0,sched_interval=1,sched_min_interval=0,bf_interval=1
InactiveLimit=0
KillWait=3
MinJobAge=7200
FirstJobId={first}
Waittime=0
JobRequeue=1
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
{more}
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/none
JobAcctGatherType=jobacct_gather/none
{nodes}
PartitionName=low Nodes=ALL Default=YES PriorityTier=10 GraceTime=6 MaxTime=INFINITE State=UP
PartitionName=high Nodes=ALL PriorityTier=100 MaxTime=INFINITE State=UP
"""
ENDED = {"COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "PREEMPTED", "OUT_OF_MEMORY", "DEADLINE"}


class Cluster:
    """The cluster from `with` to its end; `sbatch` and the rest speak to it as a user does."""

    def __init__(self, more: str = "SlurmctldParameters=preempt_send_user_signal"):
        for program in ("munged", "slurmctld", "slurmd", "sbatch"):
            if shutil.which(program, path=DAEMON_PATH) is None:
                missing("SLURM", f"there is no {program}; {INSTALL}")
        self.lab = Path(tempfile.mkdtemp(prefix="hsl-", dir="/tmp"))
        self.lab.chmod(0o755)
        self.more = more
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("SLURM_", "SBATCH_", "RAY_"))}
        self.environment = kept | {
            "PATH": DAEMON_PATH, "SLURM_CONF": str(self.lab / "slurm.conf"), "HAMSCOPE_HOME": str(ROOT),
            "HAMSCOPE_SITE": "test", "OMP_NUM_THREADS": "1", "SBATCH_PARTITION": "low",
        }  # fmt: skip

    def __enter__(self):
        try:
            self._start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_):
        self.stop()

    def _start(self) -> None:
        munge, ports = self.lab / "munge", _free_ports(NODES + 1)
        munge.mkdir(mode=0o700)
        (munge / "key").touch(mode=0o600)
        (munge / "key").write_bytes(os.urandom(128))
        nodes = []
        for k in range(1, NODES + 1):
            (self.lab / f"spool.n{k}").mkdir()
            (self.lab / f"tmp.n{k}").mkdir()
            (self.lab / f"tmp.n{k}").chmod(0o1777)
            nodes.append(
                f"NodeName=n{k} NodeHostname={_host()} NodeAddr=127.0.0.1 Port={ports[k]} CPUs={CPUS} RealMemory=8000"
            )
        (self.lab / "state").mkdir()
        (self.lab / "slurm.conf").write_text(CONF.format(
            host=_host(), port=ports[0], user=getuser(), lab=self.lab, first=4000 + os.getpid() * 97 % 4000,
            more=self.more, nodes="\n".join(nodes),
        ))  # fmt: skip
        self.call(
            "munged", "--force", f"--key-file={munge}/key", f"--socket={self.lab}/munge.sock",
            f"--pid-file={self.lab}/munged.pid", f"--log-file={munge}/log", f"--seed-file={munge}/seed",
        )  # fmt: skip
        self.call("slurmctld", "-c")
        for k in range(1, NODES + 1):
            self.call("slurmd", "-N", f"n{k}")
        idle = ("sinfo", "-h", "-N", "-p", "low", "-t", "idle", "-o", "%N")
        self.until(lambda: self.call(*idle).split() == ["n1", "n2"])

    def stop(self) -> None:
        """End the jobs, then the daemons, by their process ids."""
        if (self.lab / "slurmctld.pid").exists():
            with contextlib.suppress(AssertionError):
                self.end_jobs()
        for path in sorted(self.lab.glob("slurm*.pid")) + [self.lab / "munged.pid"]:
            if not path.exists():
                continue
            pid = int(path.read_text())
            for number in (signal.SIGTERM, signal.SIGKILL):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, number)
                deadline = time.monotonic() + 5
                while Path(f"/proc/{pid}").exists() and time.monotonic() < deadline:
                    time.sleep(0.05)
        shutil.rmtree(self.lab, ignore_errors=True)

    def end_jobs(self) -> None:
        """Cancel what is left of a test."""
        self.call("scancel", "-u", getuser())
        self.until(lambda: not self.call("squeue", "-h"), 40)

    def call(self, *command: str, status: int = 0, **environment: str) -> str:
        """Run a command against this cluster and return what it says on stdout."""
        done = subprocess.run(
            command, env=self.environment | environment, capture_output=True, text=True, timeout=60, cwd=ROOT
        )
        assert done.returncode == status, f"{command}: {done.stdout}\n{done.stderr}"
        return done.stdout.strip()

    def sbatch(self, *arguments: str, **environment: str) -> str:
        """Submit a job and return its id."""
        return self.call("sbatch", "--parsable", *arguments, **environment)

    def fields(self, job: str) -> dict[str, str]:
        """What SLURM says of a job; of the first task where it is an array."""
        line = self.call("scontrol", "-o", "show", "job", job).splitlines()[0]
        return dict(word.split("=", 1) for word in line.split() if "=" in word)

    def state(self, job: str) -> str:
        return self.fields(job)["JobState"]

    def wait(self, job: str, timeout: float = 180) -> dict[str, str]:
        """Wait for the end of a job, requeued as often as it may be; return what SLURM says of it."""
        self.until(lambda: self.state(job) in ENDED, timeout, lambda: self.fields(job))
        return self.fields(job)

    def until(self, condition, timeout: float = 60, what=lambda: "") -> None:
        """Wait until `condition()` holds."""
        deadline = time.monotonic() + timeout
        while not condition():
            assert time.monotonic() < deadline, f"waited in vain: {what()}"
            time.sleep(POLL)

    def take_nodes(self, *nodes: str, seconds: float = 1) -> str:
        """A job of the partition `high` that needs the nodes whole, so that what runs there has to leave."""
        return self.sbatch(
            "-p", "high", "-w", ",".join(nodes), "-N", str(len(nodes)), "--exclusive", "-o", "/dev/null",
            "--wrap", f"sleep {seconds}",
        )  # fmt: skip

    def resume(self, node: str) -> None:
        """Bring a node back that was set down; it may be back by itself, as its slurmd is alive."""
        subprocess.run(["scontrol", "update", f"nodename={node}", "state=resume"], env=self.environment,
                       capture_output=True, timeout=60)  # fmt: skip
        self.until(lambda: self.call("sinfo", "-h", "-n", node, "-p", "low", "-o", "%t") in ("idle", "mix", "alloc"))

    def processes(self, job: str) -> list[int]:
        """Living processes that a job started, wherever they are by now: its id is in their environment."""
        found, marks = [], {f"SLURM_JOB_ID={job}".encode(), f"SLURM_CONF={self.lab}/slurm.conf".encode()}
        for path in Path("/proc").glob("[0-9]*"):
            try:
                if marks <= set((path / "environ").read_bytes().split(b"\0")):
                    found.append(int(path.name))
            except OSError:
                continue
        return found

    def ranks(self, job: str) -> list[int]:
        """Those of them that are ranks of `hamscope simulate`, without the shells round them."""
        lines = {pid: command_line(pid) for pid in self.processes(job)}
        named = {pid: line for pid, line in lines.items() if b"hamscope\0simulate" in line.replace(b"/", b"\0")}
        return [pid for pid, line in named.items() if b"python" in line.split(b"\0")[0]]


def command_line(pid: int) -> bytes:
    """The command line of a process, its words ended by zeros; empty where it has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def events(out: Path) -> list[tuple[str, str, int | None]]:
    """Stage, event and status of every line of OUT/jobs.jsonl."""
    path = out / "jobs.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    assert all(list(line) == ["time", "stage", "job", "event", "status", "host", "log"] for line in lines)
    return [(line["stage"], line["event"], line["status"]) for line in lines]


def _host() -> str:
    return socket.gethostname().split(".")[0]


def _free_ports(count: int) -> list[int]:
    """Ports that nobody listens on now."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
