"""A report as a folder: one self-contained HTML page and files beside it, written whole or not at all.

The page holds its pictures inside and asks for nothing from anywhere.  It runs no script but its own, which its content
security policy (templates/base.html.j2) names by its hash.  The template escapes every value.
"""

import base64
import hashlib
import json
import os
import shutil
import sys
import tempfile
from importlib import resources
from pathlib import Path

import jinja2
from markupsafe import Markup

from hamscope import __version__
from hamscope.errors import UserError
from hamscope.provenance import canonical_json, check_writable, sha256_file, sha256_text
from hamscope.verdict import percent

PAGE, MARK = "index.html", "report.json"
SCHEMA = "hamscope-report"


def write_page(source: str | Path, folder: str | Path, replace: bool, build, also: str = "") -> Path:
    """Make `folder` the report of the file `source`, whole or not at all, and return the path of its page.

    `build` takes an empty folder, writes the pictures there and returns the page as a text; `also` stands for whatever
    else it is made from.  A folder that is the
    report of this very file is left as it is.

    Raises
    ------
    UserError
        `folder` is the report of another file (unless `replace`), holds anything that is no part of a report
        (whatever `replace` says), or cannot be written.
    """
    folder = Path(folder)
    inputs = sha256_text(canonical_json([__version__, sha256_file(source), also]))
    if _is_done(folder, inputs, replace):
        print(f"report: {folder} is of these results, nothing to do", file=sys.stderr)
        return folder / PAGE
    check_writable(folder)
    temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", suffix=".part", dir=folder.absolute().parent))
    try:
        (temporary / PAGE).write_text(build(temporary), encoding="utf-8", errors="replace")
        mark = {"schema": SCHEMA, "inputs_sha256": inputs, "files": sorted(_files(temporary))}
        (temporary / MARK).write_text(json.dumps(mark, indent=1) + "\n")
        temporary.chmod(0o777 & ~_umask())
        _swap(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return folder / PAGE


def render(template: str, context: dict) -> str:
    """The page of a template and its values; a value that the template names and `context` lacks is an error."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("hamscope"), autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    environment.filters["percent"] = percent
    return environment.get_template(template).render(context)


def picture(path: Path, alt: str, caption: str, draw, narrow: bool = False) -> dict:
    """What the page needs of one picture; `draw` writes it to `path`.  A `narrow` one does not fill the page."""
    draw(path)
    return {"file": path.name, "alt": alt, "caption": caption, "data": encoded(path), "narrow": narrow}


def plot(path: Path, alt: str, caption: str, draw) -> dict:
    """A picture that is drawn twice, wide and narrow, and tells where each frame stands in it.

    `draw(path, narrow)` writes it to `path` and returns a list of [x, top, bottom], parts of its width and height.
    """
    small = path.with_name(f"{path.stem}-narrow{path.suffix}")
    places = {"wide": draw(path, False), "narrow": draw(small, True)}
    return {"file": path.name, "alt": alt, "caption": caption, "data": encoded(path), "small": encoded(small),
            "places": places}  # fmt: skip


def encoded(path: Path) -> str:
    """A file as base64."""
    return base64.b64encode(path.read_bytes()).decode()


def script(name: str) -> dict:
    """A script of the templates as `text`, and the `source` that lets a content security policy run it and no other."""
    text = (resources.files("hamscope") / "templates" / name).read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    return {"text": Markup(text), "source": Markup(f"'sha256-{digest}'")}


def plain(value) -> str | None:
    """A dict as `name value, name value`, anything else as text; None stays None."""
    return ", ".join(f"{key} {own}" for key, own in value.items()) if isinstance(value, dict) else value


def _is_done(folder: Path, inputs: str, replace: bool) -> bool:
    """True where `folder` is the whole report of `inputs`; UserError where it must not be replaced."""
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return False
    try:
        mark = json.loads((folder / MARK).read_text())
        files = set(mark["files"]) | {MARK}
        ours = mark["schema"] == SCHEMA
    except (OSError, ValueError, KeyError, TypeError):
        ours = False
    if not ours:
        raise UserError(f"{folder}: is there already and is no report of hamscope; choose another --out")
    # What a user put into the folder is not ours to delete.
    strange = sorted(_files(folder) - files)
    same = mark.get("inputs_sha256") == inputs
    if same and all((folder / name).exists() for name in files):
        return True
    if strange:
        raise UserError(
            f"{folder}: holds {strange[0]!r}, which is no part of the report; move it or choose another --out"
        )
    if not (same or replace):
        raise UserError(f"{folder}: is the report of other results; add --replace or choose another --out")
    return False


def _files(folder: Path) -> set[str]:
    """Every file below a folder by its relative path, and every folder that is empty."""
    inside = [path for path in folder.rglob("*") if not path.is_dir() or path.is_symlink() or not any(path.iterdir())]
    return {path.relative_to(folder).as_posix() for path in inside}


def _swap(temporary: Path, folder: Path) -> None:
    """Put `temporary` in the place of `folder`; the old one goes last."""
    old = temporary.with_suffix(".old")
    if folder.exists():
        os.replace(folder, old)
    try:
        os.replace(temporary, folder)
    except OSError:
        if old.exists():
            os.replace(old, folder)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _umask() -> int:
    """The umask of the process; it can only be read by setting it."""
    mask = os.umask(0o077)
    os.umask(mask)
    return mask
