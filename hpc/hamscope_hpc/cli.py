"""The `hamscope` command.

Exit 0 only when the output is whole; 1 failure; 2 the user's mistake, one clear line; 3 whole but for quarantined
frames; 75 stopped in a resumable state, the same command goes on.  Engines are imported by the command that needs
them, so help is instant.
"""

import math
import os
import signal
import sys
import traceback
from typing import get_args

import click

from hamscope import __version__
from hamscope.config import Classify, load_config
from hamscope.errors import Failed, Quarantined, Stopped, UserError

EXIT_FAILURE, EXIT_USER = 1, 2
# Open MPI in a process that no launcher started need not listen for others, on all interfaces of the machine.
ALONE = {"OMPI_MCA_btl": "self", "OMPI_MCA_ess_singleton_isolated": "1"}
LAUNCHED = {"OMPI_COMM_WORLD_SIZE", "PMIX_RANK", "PMI_RANK"}
CONFIDENCE = get_args(Classify.model_fields["confidence"].annotation)

replace_option = click.option("--replace", is_flag=True, help="Replace an output that was made from other inputs.")


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="hamscope")
def hamscope():
    """Read the Hamiltonian off an image: which model drew these domains, how surely, how near criticality."""


@hamscope.command()
@click.argument("config")
@click.option("--out", required=True, help="The slices file to write.")
@click.option("--ranks-per-lattice", type=int, help="Ranks that share a lattice; by default what should be fastest.")
@click.option("--checkpoint-every", default=60.0, show_default=True, type=click.FloatRange(0), metavar="SECONDS",
              help="Time between two checkpoints.")  # fmt: skip
@click.option("--mpi-io-hint", "hints", multiple=True, metavar="KEY=VALUE", help="A hint for MPI-IO; may be repeated.")
@click.option("--part", metavar="K/N", help="Compute only part K of N, beside jobs of the other parts; the command "
              "without --part writes OUT.")  # fmt: skip
@replace_option
def simulate(config, out, ranks_per_lattice, checkpoint_every, hints, part, replace):
    """Draw the images of CONFIG's models.  Start it with mpiexec or srun to use more than one process.

    A signal (SIGTERM, SIGUSR1, Ctrl-C) stops it with status 75, and the same command goes on, also on another number
    of processes.  Until the end all work is in the folder OUT.work.
    """
    if not LAUNCHED & os.environ.keys():
        os.environ |= ALONE

    from mpi4py import MPI

    from hamscope_hpc.claim import parse_part
    from hamscope_hpc.simulate import simulate

    comm = MPI.COMM_WORLD
    try:
        pairs = dict(_pair("--mpi-io-hint", hint) for hint in hints)
        part = part and parse_part(part)
        simulate(load_config(config), out, comm, ranks_per_lattice, replace, checkpoint_every, pairs, part)
    except (UserError, Stopped, Failed) as error:  # on all ranks alike
        if comm.rank == 0:
            say(error)
        sys.stderr.flush()
        sys.exit(error.exit_status)
    except BaseException as error:
        # Collective calls of the other ranks would wait for ever: end the whole job, on every rank.
        if not isinstance(error, KeyboardInterrupt):
            traceback.print_exc()
        say(
            f"simulate: rank {comm.rank} failed: {error!r}; {out} was not written, what is stored in {out}.work is kept"
        )
        sys.stderr.flush()
        comm.Abort(EXIT_FAILURE)


@hamscope.command()
@click.argument("config")
@click.option("--out", required=True, help="The slices file to write.")
@click.option("--site", help="A site file: what a SLURM job asks for.  Without it: processes of this machine.")
@click.option(
    "--jobs", type=click.IntRange(1), help="The most SLURM jobs at a time; by default 16, or one a core here."
)
@click.option("--checkpoint-every", default=60.0, show_default=True, type=click.FloatRange(0), metavar="SECONDS",
              help="Time between two checkpoints.")  # fmt: skip
@replace_option
def campaign(config, out, site, jobs, checkpoint_every, replace):
    """Draw the images of CONFIG's models as many small SLURM jobs: the same file as that of `hamscope simulate`.

    A signal (SIGTERM, SIGUSR1, Ctrl-C) stops it with status 75, and the same command goes on, also after a kill.
    """
    from hamscope_hpc.campaign_cluster import check_here, load_site

    check_here()
    os.environ |= ALONE  # the workers inherit it

    from hamscope_hpc.campaign import campaign

    loaded = load_site(site) if site else None
    jobs = jobs or (16 if site else len(os.sched_getaffinity(0)))
    campaign(load_config(config), out, loaded, jobs, replace, checkpoint_every)


@hamscope.command()
@click.argument("frames", nargs=-1, required=True)
@click.option("--out", required=True, help="The HDF5 file to write; a CSV of the same name comes beside it.")
@click.option("--flat", help="A frame of even reflectivity, or several of them, to undo uneven light.")
@click.option("--dark", help="A frame without light, or several of them, for the flat field.")
@click.option("--average", default=1, show_default=True, type=click.IntRange(1), metavar="N",
              help="Average N neighbouring frames, an odd number, within one direction of the sweep.")  # fmt: skip
@click.option("--drift", is_flag=True, help="Undo the sideways drift, and keep what all frames show.")
@click.option("--crop", metavar="ROW0:ROW1,COL0:COL1", help="Keep this part of the first frame.")
@click.option("--mask", help="An image of the first frame, non-zero where it shows no sample (electrodes).")
@click.option("--threshold", default="none", show_default=True, metavar="RULE",
              help="none, otsu, median or a grey value for each frame; series, one (Otsu's) for all; trace, the jump "
              "of every pixel's time trace.")  # fmt: skip
@click.option("--panel", is_flag=True, help="Also show whether the verdict depends on the threshold, 15 % up or down.")
@click.option("--bundle", help="The bundle for --panel; by default the one that comes with hamscope.")
@replace_option
def prepare(frames, out, flat, dark, average, drift, crop, mask, threshold, panel, bundle, replace):
    """Prepare raw FRAMES of one experiment for `hamscope classify`.

    In this order: flat field, drift, average, crop, threshold.  --drift writes OUT.shifts.csv, --panel OUT.panel.png
    and OUT.panel.csv beside the output (without its .h5).
    """
    from hamscope.prepare import prepare as run
    from hamscope.prepare_frames import Options, parse_crop, parse_threshold

    options = Options(
        flat=flat, dark=dark, average=average, drift=drift, crop=crop and parse_crop(crop), mask=mask,
        threshold=parse_threshold(threshold),
    )  # fmt: skip
    if bundle and not panel:
        raise UserError("--bundle: is for the threshold panel; add --panel")
    shown = None
    if panel:
        from hamscope.threshold_panel import Panel

        shown = Panel(bundle)
    print(*run(list(frames), out, options, replace, shown), sep="\n")


@hamscope.command()
@click.argument("config")
@click.argument("slices")
@click.option("--out", required=True, help="The bundle folder to write.")
@click.option("--workers", default=1, show_default=True, type=click.IntRange(1), help="Ray Train workers.")
@click.option("--gpu/--cpu", default=None, help="Train on GPUs or on CPUs; by default GPUs where there are any.")
@click.option("--set", "changes", multiple=True, metavar="KEY=VALUE", help="Change a key of [train]; may be repeated.")
@replace_option
def train(config, slices, out, workers, gpu, changes, replace):
    """Train CONFIG's network on a SLICES file."""
    from hamscope_hpc.train import train

    loaded = load_config(config, {"train": dict(_pair("--set", change) for change in changes)})
    train(loaded, slices, out, workers=workers, use_gpu=gpu, replace=replace)


@hamscope.command()
@click.argument("bundle")
@click.argument("slices")
@click.option("--out", required=True, help="The bundle folder to write.")
@replace_option
def calibrate(bundle, slices, out, replace):
    """Set the probabilities and error bars of BUNDLE by SLICES of lattices that it was not trained on.

    Such as those of configs/calibration.toml.  Half of the lattices set them, the other half says how well they hold.
    """
    from hamscope.calibrate import calibrate as run

    run(bundle, slices, out, replace)


@hamscope.command()
@click.argument("frames", nargs=-1, required=True)
@click.option("--bundle", help="A bundle made by `hamscope train`; by default the one that comes with hamscope.")
@click.option("--out", required=True, help="The results file to write.")
@click.option("--stride", default=1, show_default=True, type=click.IntRange(1), help="Step between windows, in pixels.")
@click.option("--threshold", default="otsu", show_default=True, help="otsu, median or a grey value.")
@click.option("--up", default="bright", show_default=True, type=click.Choice(["bright", "dark"]), help="Spin up is ...")
@click.option(
    "--confidence",
    default="default",
    show_default=True,
    type=click.Choice(CONFIDENCE),
    help="What makes a window confident: the score of the bundle, another one, or a reading of the paper's flag.",
)
@click.option(
    "--psf-px",
    type=click.FloatRange(0),
    metavar="PIXELS",
    help="Standard deviation of the microscope's point-spread function; left out, it is not known.",
)
@click.option("--sweep-psf", is_flag=True, help="Also show the verdict against the assumed width, 0 to 3 pixels.")
@click.option("--actors", type=click.IntRange(1), help="Processes that classify; by default one a core or a GPU.")
@click.option("--actors-per-gpu", default=1, show_default=True, type=click.IntRange(1), help="Actors that share a GPU.")
@click.option(
    "--replace",
    is_flag=True,
    help="Replace an output that was made from other inputs; try its quarantined frames again.",
)
def classify(
    frames, bundle, out, stride, threshold, up, confidence, psf_px, sweep_psf, actors, actors_per_gpu, replace
):
    """Classify every window of FRAMES: files, folders or globs of TIFF, PNG, .npy, .npz or HDF5.

    The last lines are the verdicts.  A frame that is damaged, or kills the process that works on it, is tried three
    times and then quarantined: the others go on, the exit status is 3, and OUT says which and why.  --sweep-psf writes
    OUT.sweep.png and OUT.sweep.csv beside the results (without their .h5), and puts the picture into the report.
    """
    from hamscope_hpc.classify import classify
    from hamscope_hpc.run import closing_lines, refuse_quarantined

    if threshold not in ("otsu", "median"):
        try:
            threshold = float(threshold)
        except ValueError:
            raise UserError(f"--threshold {threshold}: write otsu, median or a number of grey levels") from None
    if psf_px is not None and not math.isfinite(psf_px):
        raise UserError(f"--psf-px {psf_px}: write a number of pixels, or leave it out where it is not known")
    options = Classify(stride=stride, threshold=threshold, up=up, confidence=confidence, psf_px=psf_px)
    if sweep_psf:
        from hamscope.learn.bundle import default_bundle, read_bundle
        from hamscope.learn.sweep import check_takes_condition
        from hamscope_hpc.sweep import sweep_psf as sweep

        check_takes_condition(read_bundle(bundle or default_bundle()))  # before anything is classified
    path = classify(list(frames), bundle, out, options, actors, replace, actors_per_gpu)
    for made in sweep(list(frames), bundle, path, options) if sweep_psf else ():
        print(f"sweep: {made}")
    print(*closing_lines(path, {}), sep="\n")
    refuse_quarantined(path)


@hamscope.command()
@click.argument("file")
@click.option("--out", required=True, help="The report folder to write.")
@replace_option
def report(file, out, replace):
    """Write FILE, results or slices, as one self-contained HTML page and PNG files."""
    from hamscope.report import write_report

    print(write_report(file, out, replace=replace))


@hamscope.command()
@click.argument("bundles", nargs=-1, required=True, metavar="BUNDLE...")
@click.option("--slices", required=True, help="Lattices that no bundle was trained on, such as configs/fresh.toml's.")
@click.option("--training", help="The slices of the first bundle's training: for the baselines and for rejection.")
@click.option("--larger", help="Slices of larger lattices, such as configs/larger.toml's.")
@click.option("--scans", multiple=True, help="Frames that are foreign to all seven models; may be repeated.")
@click.option("--images", default=300, show_default=True, type=click.IntRange(10), help="Windows a class.")
@click.option("--out", required=True, help="The folder to write the page to.")
@replace_option
def assess(bundles, slices, training, larger, scans, images, out, replace):
    """Measure what BUNDLES are worth: against blur, foreign patterns, their own error bars, and simple baselines."""
    from hamscope.assess.page import write_assessment

    print(write_assessment(list(bundles), slices, out, training, larger, list(scans), images, replace))


@hamscope.command()
@click.argument("paths", nargs=-1, required=True, metavar="FILE|BUNDLE...")
def check(paths):
    """Say whether slices, results or a bundle are what their contract says.

    Safe on files from elsewhere: each is read in a child process with limits of memory and time.  Exit 0 if all are
    good, 2 if one is not, 1 if one could not be checked.
    """
    from hamscope.child import check

    outcomes = check(paths)
    for outcome in outcomes:
        if outcome.verdict == "good":
            print(*outcome.lines, sep="\n")
        else:
            say("\n".join(outcome.lines))
    verdicts = {outcome.verdict for outcome in outcomes}
    sys.exit(EXIT_FAILURE if "unknown" in verdicts else EXIT_USER if "bad" in verdicts else 0)


@hamscope.command()
@click.argument("config")
@click.option("--film", "names", multiple=True, metavar="NAME", help="Write this film alone; may be repeated.")
@click.option("--out", required=True, help="The folder to write the films to, or the .tif of a single one.")
def film(config, names, out):
    """Write CONFIG's films: synthetic experiments of known truth, as TIFF with a CSV beside each."""
    from hamscope_hpc.run import make_films

    for path in make_films(load_config(config), out, names):
        print(path)


@hamscope.command()
@click.argument("config")
@click.option("--frames", multiple=True, help="Frames to classify instead of CONFIG's films; may be repeated.")
@click.option("--out", required=True, help="The folder for everything that is made.")
@click.option("--ranks", type=click.IntRange(1), help="MPI ranks for the simulation; by default one a core.")
@click.option("--workers", default=1, show_default=True, type=click.IntRange(1), help="Ray Train workers.")
def run(config, frames, out, ranks, workers):
    """The whole way: simulate, train, classify, report.  Skips what is done and still valid."""
    from hamscope_hpc.run import run

    run(config, out, list(frames), ranks=ranks, workers=workers)


@hamscope.command()
@click.argument("folder")
@click.option("--json", "as_json", is_flag=True, help="The same as JSON.")
def status(folder, as_json):
    """Say how far the work in FOLDER is, what runs and what failed; from its files alone, also on a login node."""
    import json

    from hamscope_hpc.status import lines, read_status, squeue

    stages, jobs = read_status(folder, squeue())
    if as_json:
        print(json.dumps({"stages": [s._asdict() for s in stages], "jobs": [j._asdict() for j in jobs]}, indent=1))
    else:
        print(*lines(stages, jobs), sep="\n")


def _pair(option: str, text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not (key and equals):
        example = "epochs=4" if option == "--set" else "striping_factor=8"
        raise UserError(f"{option} {text}: write KEY=VALUE, such as {example}")
    return key.strip(), value.strip()


def say(message) -> None:
    """One message on stderr, every line with the name of the command."""
    for line in str(message).splitlines() or [""]:
        print(f"hamscope: {line}", file=sys.stderr)


def main() -> None:
    """Run the command and turn what happens into an exit status."""

    def interrupt(*_):
        raise KeyboardInterrupt

    for number in (signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, interrupt)
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # Where colorama is installed, numba lets it write an escape sequence to the stdout of a terminal; a rank's is one.
    os.environ.setdefault("NUMBA_DISABLE_ERROR_MESSAGE_HIGHLIGHTING", "1")
    try:
        hamscope.main(standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(EXIT_USER)
    except (UserError, Quarantined, Stopped, Failed) as error:
        say(error)
        sys.exit(error.exit_status)
    except (click.Abort, KeyboardInterrupt):
        say("stopped")
        sys.exit(EXIT_FAILURE)
    except Exception as error:
        traceback.print_exc()
        say(f"failed: {error!r}")
        sys.exit(EXIT_FAILURE)


if __name__ == "__main__":
    main()
