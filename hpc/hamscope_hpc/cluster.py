"""The Ray that a program runs on: the one that is there, else a private one of this machine.

A private Ray listens on the loopback interface only, asks every client for a token, keeps its files in a folder that
only this user may enter, and ends with the program.
"""

import logging
import os
import secrets
import shutil
import signal
import sys
import tempfile
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import ray
from ray._private import ray_constants

LOOPBACK = "127.0.0.1"
OBJECT_STORE_BYTES = 256 * 2**20  # pixels and slices are read by those who need them, so little travels
_SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)


@contextmanager
def start_ray(cpus: int | None = None):
    """Be connected to Ray within the block; end afterwards only what was started here.

    A connection of this process is used again; else the cluster at RAY_ADDRESS is joined; else a private Ray starts.

    Parameters
    ----------
    cpus : int, optional
        CPUs that a private Ray offers; by default those that this process may use.
    """
    if ray.is_initialized():
        yield
    elif os.environ.get("RAY_ADDRESS"):
        with _connected(address=os.environ["RAY_ADDRESS"]):
            yield
    else:
        with _private_ray(cpus or len(os.sched_getaffinity(0))):
            yield


@contextmanager
def _private_ray(cpus: int):
    """Start a Ray for this process alone."""
    # The names of sockets may have 107 bytes, so TMPDIR, which can be long, is not asked.  The folder has mode 0700;
    # Ray opens its own to all users, so that lies inside.
    folder = Path(tempfile.mkdtemp(prefix="hs-", dir="/tmp"))
    token = folder / "token"
    token.touch(mode=0o600)
    token.write_text(_token())
    # Not RAY_AUTH_MODE: Ray reads that when it is imported, too early.  A local Ray wants a token unless told
    # otherwise, and sets the mode for its processes.
    # Ray's own messages stay in its log files: in this process they would be warnings about Ray's inner workings.
    quiet = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_BACKEND_LOG_LEVEL": "fatal"}
    with _environment(RAY_AUTH_MODE=None, RAY_AUTH_TOKEN_PATH=str(token), **quiet):
        # On Linux Ray replaces a loopback address by one that the network can reach, unless it is told that this is a
        # machine without clusters.
        clusters, ray_constants.ENABLE_RAY_CLUSTER = ray_constants.ENABLE_RAY_CLUSTER, False
        try:
            with _connected(
                address="local", num_cpus=cpus, include_dashboard=True, dashboard_host=LOOPBACK,
                _node_ip_address=LOOPBACK, _temp_dir=str(folder / "ray"), object_store_memory=OBJECT_STORE_BYTES,
            ) as context:  # fmt: skip
                if context.dashboard_url:
                    print(f"dashboard: http://{context.dashboard_url} (asks for the token in {token})", file=sys.stderr)
                yield
        finally:
            ray_constants.ENABLE_RAY_CLUSTER = clusters
            shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _environment(**variables: str | None):
    """Set variables of the environment within the block; None leaves one as it is.  All are put back afterwards."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update({name: value for name, value in variables.items() if value is not None})
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


@contextmanager
def _connected(**arguments):
    """`ray.init` with quiet logs, this process's own signal handlers, and `ray.shutdown` at the end."""
    handlers = {number: signal.getsignal(number) for number in _SIGNALS}
    with _without_stderr():  # where Ray would say that it obeys RAY_BACKEND_LOG_LEVEL; its errors come as exceptions
        context = ray.init(logging_level=logging.ERROR, log_to_driver=False, **arguments)
    try:
        # Ray's own handler of SIGTERM would end the process without a word.
        for number, handler in handlers.items():
            signal.signal(number, handler)
        yield context
    finally:
        ray.shutdown()


@contextmanager
def _without_stderr():
    """Send what is written to file descriptor 2 within the block to nowhere, that of libraries in C++ too."""
    sys.stderr.flush()
    kept = os.dup(2)
    with open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


@cache
def _token() -> str:
    """The token of this process; Ray remembers the first that it meets, so a second private Ray gets the same."""
    return secrets.token_hex(32)
