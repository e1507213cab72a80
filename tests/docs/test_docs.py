"""The documentation: the site builds without a warning, asks nobody for anything, and its commands do what it says."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import click
import pytest
from engines import ROOT

from hamscope_hpc import cli

PAGES = sorted((ROOT / "docs").glob("*.md"))


def commands(page: str) -> list[str]:
    """The lines of the ```bash blocks of a page, in order."""
    blocks = re.findall(r"^```bash\n(.*?)^```", (ROOT / "docs" / page).read_text(), re.S | re.M)
    return [line for block in blocks for line in block.splitlines() if line.strip()]


def test_the_site_builds(tmp_path):
    """Warnings are errors: dead links, pages without a place, docstrings that name parameters wrongly.

    No page loads anything from elsewhere.  Seen to fail with a link to a page that does not exist.
    """
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")]
    environment = dict(os.environ, NO_MKDOCS_2_WARNING="1")
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=200, env=environment)
    assert done.returncode == 0, done.stderr
    pages = list((tmp_path / "site").rglob("*.html"))
    assert len(pages) > len(PAGES)
    for page in pages:
        loaded = re.findall(r"""<(?:script|img|iframe)[^>]*src=["']?(https?:[^"'\s>]+)""", page.read_text())
        loaded += re.findall(r"""<link[^>]*rel=["']?(?:stylesheet|preconnect)[^>]*href=["']?(https?:[^"'\s>]+)""",
                             page.read_text())  # fmt: skip
        assert not loaded, (page, loaded)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("page", ["index.md", "images.md"])
def test_the_commands_of_a_page_work_one_after_the_other(page, tmp_path):
    """In an empty folder that has only the configs, as a reader of the page would type them.

    Seen to fail with an option misspelt in the page, and with a report of results that no command before it makes.
    """
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    environment = dict(os.environ, PATH=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    run = [line for line in commands(page) if line.startswith("hamscope ")]
    assert run == commands(page) and len(run) > 2
    for line in run:
        done = subprocess.run(
            shlex.split(line), cwd=tmp_path, capture_output=True, text=True, timeout=300, env=environment
        )
        assert done.returncode == 0, (line, done.stderr)
    for name in re.findall(r"`([a-z./-]+\.(?:html|png))`", (ROOT / "docs" / page).read_text()):
        assert (tmp_path / name).exists(), name


def test_the_commands_for_a_cluster_name_what_is_there():
    """tests/slurm runs the job scripts; here every script, config and file that the page names exists."""
    lines = commands("cluster.md")
    named = {word.strip('"') for line in lines for word in line.split() if word.startswith(("slurm/", "configs/"))}
    assert len(lines) >= 5 and {"slurm/pipeline.sh", "configs/paper.toml"} <= named
    for name in named - {"slurm/sites/mine.sh"}:
        assert (ROOT / name).exists(), name


@pytest.mark.parametrize("page", [path.relative_to(ROOT) for path in [*PAGES, ROOT / "README.md"]], ids=str)
def test_every_hamscope_command_in_the_text_is_known(page):
    """Each `hamscope COMMAND --option` of the pages and the README has a command and options of that name.

    Seen to fail with `--psf-width` for --psf-px.
    """
    text = (ROOT / page).read_text().replace("\\\n", " ")
    found = re.findall(r"hamscope ([a-z]+)((?: +[^\s`|]+)*)", text)
    for name, rest in found:
        if name not in cli.hamscope.commands:
            assert not re.search(r" --\w", rest), (name, rest)
            continue
        options = {text for parameter in cli.hamscope.commands[name].params if isinstance(parameter, click.Option)
                   for text in (*parameter.opts, *parameter.secondary_opts)}  # fmt: skip
        for option in re.findall(r"(?<= )--[a-z-]+", rest.partition("#")[0].partition(";")[0]):
            assert option in options | {"--help"}, (name, option)
