"""The whole way in one command: every stage as it runs alone, skipped where its output is still valid.

OUT/run.json  OUT/slices.h5  OUT/bundle/  OUT/frames/*.tif  OUT/results.h5  OUT/report/index.html
"""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from hamscope import provenance
from hamscope.config import Config, Film, load_config
from hamscope.errors import Failed, Quarantined, Stopped, UserError
from hamscope_hpc.progress import counted

_MARK = "run.json"
_NAMED = 20  # quarantined frames that get a closing line


def run(config_path: str, out: str, frames: list[str], ranks: int | None = None, workers: int = 1) -> None:
    """Simulate, train, classify and report below the folder `out`.

    Frames are those given, else the config's films.  Each stage compares the hash of its own section and of its inputs
    with what its output carries, says so where nothing changed, and replaces the output where something did.

    Raises
    ------
    UserError
        `out` belongs to another config or is not a run folder, or the config has no [train] section or no frames.
    Quarantined
        Everything is there, and some of the frames are quarantined.  The same call tries them again.
    """
    from hamscope.report import write_report
    from hamscope_hpc.classify import classify
    from hamscope_hpc.cluster import start_ray
    from hamscope_hpc.train import train

    config = load_config(config_path)
    if config.train is None:
        raise UserError(f"{config_path}: has no [train] section; add one")
    if not frames and not config.film:
        raise UserError(f"{config_path}: nothing to classify; give --frames or add a [[film]] section")
    folder = claim_folder(Path(out), config)
    slices, bundle, results = folder / "slices.h5", folder / "bundle", folder / "results.h5"
    simulate_in_ranks(config_path, config, slices, ranks)
    with start_ray():
        train(config, slices, bundle, workers=workers, replace=True)
        films = [] if frames else make_films(config, folder / "frames")
        classify(frames or [str(path) for path in films], bundle, results, config.classify, replace=True)
    page = write_report(results, folder / "report", replace=True)
    for line in closing_lines(results, {film.name: film for film in config.film}):
        print(line)
    print(f"report: {page}")
    refuse_quarantined(results)


def claim_folder(folder: Path, config: Config) -> Path:
    """Make `folder` the output folder of this config; UserError if it is another's or holds something else."""
    mark = folder / _MARK
    if mark.exists():
        owner = json.loads(mark.read_text()).get("name")
        if owner != config.name:
            raise UserError(f"{folder}: belongs to the config {owner!r}, not to {config.name!r}; choose another --out")
        return folder
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder}: is there already and was not made by `hamscope run`; choose another --out")
    provenance.check_writable(folder)
    folder.mkdir(exist_ok=True)
    with provenance.whole_file(mark) as temporary:
        temporary.write_text(json.dumps({"name": config.name}) + "\n")
    return folder


def simulate_in_ranks(config_path: str, config: Config, slices: Path, ranks: int | None) -> None:
    """`hamscope simulate` on this machine's cores: in MPI ranks where mpiexec is there, else in one process."""
    ranks = ranks or len(os.sched_getaffinity(0))
    command = [sys.executable, "-m", "hamscope_hpc.cli", "simulate", config_path, "--out", str(slices), "--replace"]
    environment = dict(os.environ, OMP_NUM_THREADS="1", NUMBA_NUM_THREADS="1")
    mpiexec = shutil.which("mpiexec", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    if ranks > 1 and mpiexec is None:
        print("simulate: no mpiexec on the path, so one process does it all", file=sys.stderr)
    elif mpiexec and ranks > 1:
        command = [mpiexec, "-n", str(ranks), "--oversubscribe", *command]
        # Open MPI refuses to run as root, which is what one is in a container, unless told twice.
        environment |= {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
        environment.setdefault("OMPI_MCA_btl", "^tcp")  # the ranks share this machine's memory, and none need listen
    process = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL)
    status, stopped = None, False
    while status is None:
        try:
            status = process.wait()
        except KeyboardInterrupt:
            # mpiexec passes this signal on and waits for the ranks; at SIGTERM it would kill them after a second.
            process.send_signal(signal.SIGUSR1)
            stopped = True
    if status == Stopped.exit_status:
        raise Stopped(f"run: stopped while simulating; all is kept in {slices}.work, the same command goes on")
    if status:
        raise Failed(f"run: the simulation ended with status {status}; its last lines say why")
    if stopped:
        raise Stopped(f"run: stopped after simulating; {slices} is complete, the same command goes on")


def make_films(config: Config, out: str | Path, names: Sequence[str] = ()) -> list[Path]:
    """The config's films, or those called `names`, as files in the folder `out`, or a single one as `out`, a .tif.

    A film that is there and of the same section is left as it is.
    """
    from hamscope.film import film_is_current, film_path, names_file, write_film

    if not config.film:
        raise UserError(f"config {config.name!r}: has no [[film]] section; add one")
    known = {film.name: film for film in config.film}
    for name in names:
        if name not in known:
            raise UserError(f"config {config.name!r}: has no film {name!r}; its films are {', '.join(known)}")
    films = [known[name] for name in dict.fromkeys(names or known)]
    provenance.check_writable(out)
    if names_file(out):
        if len(films) > 1:
            raise UserError(f"{out}: is one file, and there are {len(films)} films; name one with --film, or a folder")
    else:
        Path(out).mkdir(exist_ok=True)
    paths = []
    for film in films:
        path = film_path(film, out)
        if film_is_current(film, path):
            print(f"film: {path} is of this config, nothing to do", file=sys.stderr)
        else:
            path = write_film(film, out)
            print(f"film: {path}, {counted(film.frames, 'frame')} of {film.model}", file=sys.stderr)
        paths.append(path)
    return paths


def closing_lines(results: Path, films: dict[str, Film]) -> list[str]:
    """One line a source: verdict, share of windows, and the truth where the source is a film of the config.

    A line more for each warning about its microscope, and for each of the first quarantined frames.
    """
    from hamscope.data.results import read_results
    from hamscope.verdict import percent, source_verdicts

    lines, read = [], read_results(results, pictures=False)
    for verdict in source_verdicts(read):
        film = films.get(Path(verdict.source).stem)
        truth = f"; truth: {film.model}" if film else ""
        shares = ""
        if verdict.model:
            shares = (
                f", {verdict.share_text} of the {verdict.n_windows:,} windows of {verdict.frames_used} frames say "
                f"{verdict.named}, {percent(verdict.confident_share)} confidently"
            )
        lines.append(f"{verdict.source}: {verdict.headline}{shares}{truth}")
        lines += [f"{verdict.source}: warning: {warning}" for warning in verdict.warnings]
    given_up = read.quarantined
    lines += [f"{one.source}, frame {one.index}: quarantined: {one.reason}" for one in given_up[:_NAMED]]
    if len(given_up) > _NAMED:
        lines.append(f"{len(given_up) - _NAMED} more frames are quarantined, see {results}")
    return lines


def refuse_quarantined(results: Path) -> None:
    """Raise Quarantined where some of the frames are, after everything else was said."""
    from hamscope.data.results import read_results

    read = read_results(results, pictures=False)
    count = len(read.quarantined)
    if count:
        raise Quarantined(
            f"{count} of {counted(count + len(read.source), 'frame')} quarantined, named above and in {results}; the "
            "others are whole. Mend or leave out what is damaged, or try again with --replace"
        )
