"""What a result was made from, and files that are written whole or not at all."""

import hashlib
import importlib.metadata
import json
import os
import platform
from contextlib import contextmanager
from pathlib import Path

from hamscope import __version__
from hamscope.errors import UserError


def canonical_json(value) -> str:
    """JSON with sorted keys and no spare spaces: equal values give equal text."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def section_json(section) -> str:
    """The resolved section of a config (a pydantic model) as canonical JSON."""
    return canonical_json(section.model_dump(mode="json", by_alias=True))


def sha256_text(text: str) -> str:
    """SHA-256 of a text in UTF-8, as hex digits."""
    return hashlib.sha256(text.encode()).hexdigest()


def sha256_file(path: str | Path) -> str:
    """SHA-256 of a file's bytes, as hex digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def section_hash(section, *inputs: str) -> str:
    """The hash that decides whether a stage must run again: its section, the hashes of its inputs, our version."""
    return sha256_text(canonical_json([__version__, section_json(section), *inputs]))


def software_versions(*names: str) -> dict[str, str]:
    """Versions of hamscope, Python and the named distributions."""
    versions = {"hamscope": __version__, "python": platform.python_version()}
    return versions | {name: importlib.metadata.version(name) for name in names}


@contextmanager
def whole_file(path: str | Path):
    """Yield a temporary path beside `path`; after the block it is flushed and renamed, on an error removed.

    Raises UserError where the folder does not exist or cannot be written.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    check_writable(path)
    try:
        yield temporary
        publish(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def publish(temporary: Path, path: Path) -> None:
    """Flush `temporary` to the disk and give it its final name; a reader sees the old file or the new one."""
    with open(temporary, "rb") as file:
        os.fsync(file.fileno())
    os.replace(temporary, path)
    # The name lives in the folder, which reaches the disk on its own.
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def check_writable(path: str | Path) -> None:
    """Raise UserError unless `path` (a file or folder to be made) can be written where it is."""
    folder = Path(path).absolute().parent
    if not folder.is_dir():
        raise UserError(f"{path}: the folder {folder} does not exist; make it first or choose another --out")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise UserError(f"{path}: no permission to write in {folder}; choose another --out")
