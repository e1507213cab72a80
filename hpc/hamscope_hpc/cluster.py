"""The Ray that a program runs on: the one that is there, else a private one of this machine.

A private Ray listens on the loopback interface only, asks every client for a token, keeps its files in a folder that
only this user may enter, and ends with the program.
"""

import fcntl
import logging
import os
import re
import secrets
import shutil
import signal
import socket
import sys
import tempfile
from contextlib import ExitStack, contextmanager, suppress
from functools import cache
from pathlib import Path

import ray
from ray._private import ray_constants

from hamscope.errors import Failed, UserError

LOOPBACK = "127.0.0.1"
OBJECT_STORE_BYTES = 256 * 2**20  # pixels and slices are read by those who need them, so little travels
_PREFIX, _TOKEN = "hs-", "token"  # the folder of a private Ray in /tmp, and what its clients have to know
_SHARED = "/dev/shm"  # where Ray has its object store
_ANSWER = 10.0  # seconds within which a Ray cluster has to answer; Ray itself waits for minutes
# At "fatal" Ray's own messages stay in its log files: in this process they would be warnings about its inner workings.
_LEVEL = "RAY_BACKEND_LOG_LEVEL"
_SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)


@contextmanager
def start_ray(cpus: int | None = None):
    """Be connected to Ray within the block; end afterwards only what was started here.

    A connection of this process is used again; else the cluster at RAY_ADDRESS is joined; else a private Ray starts.

    Parameters
    ----------
    cpus : int, optional
        CPUs that a private Ray offers; by default those that this process may use.

    Raises
    ------
    UserError
        Nothing answers at RAY_ADDRESS.
    Failed
        Ray does not start on this machine, or the cluster does not take this process.
    """
    if ray.is_initialized():
        yield
    elif address := os.environ.get("RAY_ADDRESS"):
        _check_answers(address)
        quiet = _environment(**{_LEVEL: os.environ.get(_LEVEL, "fatal")})
        with quiet, _connected(f"RAY_ADDRESS={address}: cannot be joined", address=address):
            yield
    else:
        with _private_ray(cpus or len(os.sched_getaffinity(0))):
            yield


def _check_answers(address: str) -> None:
    """UserError unless somebody listens at an address HOST:PORT; others are left to Ray."""
    host, _, port = address.rpartition(":")
    if not (host and port.isdecimal()) or "/" in host:
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), _ANSWER).close()
    except OSError as error:
        raise UserError(
            f"RAY_ADDRESS={address}: nothing answers there ({error.strerror or error}); start a Ray cluster, or unset "
            "RAY_ADDRESS, and a private Ray starts on this machine"
        ) from None


@contextmanager
def _folder():
    """A folder of this user alone for a private Ray, with its token; Failed where Ray could not write.

    The token is locked as long as the block lasts, so the folders of processes that were killed can be told, and go.
    """
    with ExitStack() as stack:
        place = _SHARED
        try:
            if Path(place).is_dir():
                tempfile.TemporaryFile(dir=place).close()
            place = "/tmp"
            _remove_abandoned(Path(place))
            # The names of sockets may have 107 bytes, so TMPDIR, which can be long, is not asked.  The folder has mode
            # 0700; Ray opens its own to all users, so that lies inside.
            folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=place))
            stack.callback(shutil.rmtree, folder, ignore_errors=True)
            token = os.open(folder / _TOKEN, os.O_CREAT | os.O_WRONLY, 0o600)
            stack.callback(os.close, token)
            with suppress(OSError):  # a file system without locks: then nobody can lock, and nothing is removed
                fcntl.flock(token, fcntl.LOCK_EX)
            os.write(token, _token().encode())
        except OSError as error:
            raise Failed(
                f"Ray cannot start here: {place} cannot be written ({error.strerror}); make room in it or mend its "
                "rights, or give the RAY_ADDRESS of a Ray cluster"
            ) from None
        yield folder


def _remove_abandoned(place: Path) -> None:
    """Remove what private Rays of this user have left in `place` whose process was killed."""
    for folder in place.glob(f"{_PREFIX}*"):
        with suppress(OSError):
            if folder.lstat().st_uid == os.getuid():
                with open(folder / _TOKEN, "rb") as token:
                    fcntl.flock(token, fcntl.LOCK_EX | fcntl.LOCK_NB)  # raises where the lock is held
                    ours = re.fullmatch(rb"[0-9a-f]{64}", token.read(65))  # empty: it is about to be locked
                    if ours and {path.name for path in folder.iterdir()} <= {_TOKEN, "ray"}:
                        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _private_ray(cpus: int):
    """Start a Ray for this process alone."""
    # Not RAY_AUTH_MODE: Ray reads that when it is imported, too early.  A local Ray wants a token unless told
    # otherwise, and sets the mode for its processes.
    quiet = {"RAY_USAGE_STATS_ENABLED": "0", _LEVEL: "fatal"}
    with _folder() as folder, _environment(RAY_AUTH_MODE=None, RAY_AUTH_TOKEN_PATH=str(folder / _TOKEN), **quiet):
        # On Linux Ray replaces a loopback address by one that the network can reach, unless it is told that this is a
        # machine without clusters.
        clusters, ray_constants.ENABLE_RAY_CLUSTER = ray_constants.ENABLE_RAY_CLUSTER, False
        try:
            with _connected(
                "Ray did not start on this machine", address="local", num_cpus=cpus,
                include_dashboard=True, dashboard_host=LOOPBACK, _node_ip_address=LOOPBACK,
                _temp_dir=str(folder / "ray"), object_store_memory=OBJECT_STORE_BYTES,
            ) as context:  # fmt: skip
                if context.dashboard_url:
                    link = f"http://{context.dashboard_url} (asks for the token in {folder / _TOKEN})"
                    print(f"dashboard: {link}", file=sys.stderr)
                yield
        finally:
            ray_constants.ENABLE_RAY_CLUSTER = clusters


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
def _connected(failure: str, **arguments):
    """`ray.init` with quiet logs, this process's own signal handlers, and `ray.shutdown` at the end.

    Where Ray raises anything, which is of many kinds, that becomes Failed with the words `failure`.
    """
    handlers = {number: signal.getsignal(number) for number in _SIGNALS}
    try:
        with _without_stderr():  # where Ray would say that it obeys RAY_BACKEND_LOG_LEVEL
            context = ray.init(logging_level=logging.ERROR, log_to_driver=False, **arguments)
    except Exception as error:
        with suppress(Exception):
            ray.shutdown()
        reason = " ".join(str(error).split()).rstrip(".") or type(error).__name__
        raise Failed(
            f"{failure}: {reason}; is it short of memory, processes or time?  The same command tries again"
        ) from error
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
