"""The private Ray: whom it listens to, and what it leaves on the disk."""

import json
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from pathlib import Path

import pytest
import ray

from hamscope_hpc.cluster import start_ray

pytestmark = pytest.mark.usefixtures("local_ray")


def ray_processes() -> list[Path]:
    """/proc folders of the processes of this Ray: those that know its token."""
    token = os.environ["RAY_AUTH_TOKEN_PATH"].encode()
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            if token in (path / "environ").read_bytes():
                found.append(path)
        except OSError:  # ended meanwhile, or another user's
            continue
    return found


def listening(processes: list[Path]) -> set[str]:
    """Addresses on which the processes accept TCP connections."""
    inodes = set()
    for process in processes:
        for link in process.glob("fd/*"):
            try:
                inodes.add(os.readlink(link).removeprefix("socket:[").removesuffix("]"))
            except OSError:
                continue
    addresses = set()
    for table, family in (("tcp", socket.AF_INET), ("tcp6", socket.AF_INET6)):
        for line in Path("/proc/net", table).read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and fields[9] in inodes:
                words = bytes.fromhex(fields[1].split(":")[0])  # each of four bytes, in the order of the machine
                raw = b"".join(words[k : k + 4][::-1] for k in range(0, len(words), 4))
                addresses.add(socket.inet_ntop(family, raw))
    return addresses


def test_it_listens_to_this_machine_only():
    """Seen to fail without ENABLE_RAY_CLUSTER = False: ports on all interfaces, two on the address of the network."""
    ray.get(ray.remote(lambda: None).remote())  # so that a worker is there too
    addresses = listening(ray_processes())
    assert addresses and addresses <= {"127.0.0.1", "::ffff:127.0.0.1", "::1"}


def test_it_obeys_those_only_who_know_the_token():
    """A request without the token gets 401, one with it is answered; the token is this user's alone."""
    url = f"http://{ray._private.worker._global_node.webui_url}/api/jobs/"
    token = Path(os.environ["RAY_AUTH_TOKEN_PATH"])
    with pytest.raises(urllib.error.HTTPError, match="401"):
        urllib.request.urlopen(url)
    with urllib.request.urlopen(
        urllib.request.Request(url, headers={"Authorization": f"Bearer {token.read_text()}"})
    ) as page:
        assert isinstance(json.load(page), list)  # this very program may be listed as a job
    assert stat.S_IMODE(token.stat().st_mode) == 0o600 and stat.S_IMODE(token.parent.stat().st_mode) == 0o700


def test_a_block_within_uses_the_same_ray():
    before = ray.get_runtime_context().gcs_address
    with start_ray():
        assert ray.get_runtime_context().gcs_address == before
    assert ray.is_initialized()


def start_in_its_own(code: str, *before: str, **environment: str) -> subprocess.CompletedProcess:
    """`with start_ray()` round nothing, after some lines of code, as the command would run it."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    lines = f"import sys, ray\nfrom hamscope_hpc import cli, cluster\n{code}\n"
    lines += "@cli.hamscope.command()\ndef start():\n    with cluster.start_ray(cpus=1): pass\n"
    lines += "sys.argv = ['hamscope', 'start']\ncli.main()\n"
    return subprocess.run(
        [*before, sys.executable, "-c", lines], env=clean | environment, capture_output=True, text=True, timeout=240
    )


@pytest.mark.parametrize("place", ["/tmp", "/dev/shm"])
def test_a_place_that_cannot_be_written_is_named(place):
    """One line with status 1, at once.  Seen to fail unguarded: a traceback, of /dev/shm after 40 s, unnamed."""
    read_only = f'mount --bind {place} {place} && mount -o remount,ro,bind {place} && exec "$@"'
    if subprocess.run(["unshare", "-m", "sh", "-c", read_only, "sh", "true"], capture_output=True).returncode:
        pytest.skip("mounts in a namespace of its own need root")
    done = start_in_its_own("", "unshare", "-m", "sh", "-c", read_only, "sh")
    assert (done.returncode, done.stdout) == (1, ""), done.stderr
    assert done.stderr.startswith(
        f"hamscope: Ray cannot start here: {place} cannot be written (Read-only file system);"
    )
    assert done.stderr.count("\n") == 1 and "RAY_ADDRESS" in done.stderr


def test_a_ray_that_does_not_come_up_is_one_line():
    """As where the raylet takes too long.  Seen to fail unguarded: a traceback of Ray's."""
    code = "def init(**_): raise Exception('The current node timed out\\nduring startup.')\nray.init = init"
    done = start_in_its_own(code)
    assert done.returncode == 1 and done.stderr == (
        "hamscope: Ray did not start on this machine: The current node timed out during startup; is it short of "
        "memory, processes or time?  The same command tries again\n"
    )


def test_an_address_where_nothing_answers_is_the_users():
    """Seen to fail unguarded: Ray said nothing for more than a minute."""
    with socket.socket() as own:
        own.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{own.getsockname()[1]}"
        done = start_in_its_own("", RAY_ADDRESS=address)
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert done.stderr.startswith(f"hamscope: RAY_ADDRESS={address}: nothing answers there (Connection refused); ")


def test_nothing_is_left_and_the_signals_are_ours():
    """In a process of its own, twice: handlers, environment and /tmp are afterwards as before."""
    code = """
import os, signal, ray
from hamscope_hpc.cluster import start_ray
mine = lambda *_: None
signal.signal(signal.SIGTERM, mine)
before = dict(os.environ)
for _ in range(2):
    with start_ray(cpus=1):
        assert signal.getsignal(signal.SIGTERM) is mine
        folder = os.path.dirname(os.environ["RAY_AUTH_TOKEN_PATH"])
        assert ray.get(ray.remote(lambda: 7).remote()) == 7
    assert not os.path.exists(folder) and not ray.is_initialized()
assert dict(os.environ) == before
"""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    done = subprocess.run([sys.executable, "-c", code], env=clean, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("dashboard: http://127.0.0.1:") == 2


KILLED = """
import os, signal
def shutdown():
    print(os.path.dirname(os.environ["RAY_AUTH_TOKEN_PATH"]), flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
ray.shutdown = shutdown
"""


def test_what_a_killed_process_left_goes_with_the_next_start():
    """The folder of a process that SIGKILL ended goes; that of this one, which lives, and foreign ones stay.

    Those have a token that is none of ours, or something else beside one.  Seen to fail with nothing removed, with the
    lock not asked (the folder of this process goes), and with any token taken for ours.
    """
    alive = Path(os.environ["RAY_AUTH_TOKEN_PATH"]).parent
    foreign = [Path(tempfile.mkdtemp(prefix="hs-", dir="/tmp")) for _ in range(2)]
    (foreign[0] / "token").write_bytes(b"\xff not ours")
    (foreign[1] / "token").write_text("0" * 64)
    (foreign[1] / "letters").write_text("")
    try:
        killed = start_in_its_own(KILLED)
        folder = Path(killed.stdout.strip())
        assert killed.returncode == -signal.SIGKILL and (folder / "token").exists()
        assert start_in_its_own("").returncode == 0
        assert not folder.exists() and (alive / "token").exists()
        assert all((one / "token").exists() for one in foreign)
    finally:
        for one in foreign:
            shutil.rmtree(one)
