"""`hamscope calibrate`: the doubts of a trained bundle, set by many more lattices than its training could hold out.

    bundle, slices -> assess/sample.py (windows, each through a microscope) -> learn/trust.py -> the bundle again

with another temperature, other thresholds and other widths of the error bars; its weights are what they were.

An error bar is worth what its lattices are worth, not its images: those of one lattice share their parameter.
"""

import shutil
import sys
from pathlib import Path

import numpy as np

from hamscope import __version__
from hamscope.assess.sample import Sample, draw_views, load, section, see, thinned
from hamscope.data.slices import read_attributes
from hamscope.errors import UserError
from hamscope.learn import trust
from hamscope.learn.bundle import CARD, FILES, Bundle, is_made, read_bundle, write_bundle
from hamscope.learn.parameters import FEWEST_LATTICES
from hamscope.models import CLASS_NAMES
from hamscope.provenance import canonical_json, check_writable, sha256_text

SEED = 20261128  # of the microscopes
VIEWS = 4  # microscopes that each window is seen through: the spread between them is part of an error bar
FEWEST = 20  # windows of a class in a half: fewer set no limit that 95 % of them pass


def calibrate(path: str | Path, slices: str | Path, out: str | Path, replace: bool = False) -> Path:
    """Write the bundle `out`: that at `path`, with its probabilities, thresholds and error bars set by `slices`.

    Lattices with an even number set them, those with an odd one say how well they hold: the tables "calibration" and
    "coverage" of the card.  The classes count as they did in the training, since probabilities depend on it how often a
    class is met: windows are taken in that proportion, as many as there are, spread evenly over each half.

    Parameters
    ----------
    slices : str or Path
        A slices file of lattices that the bundle was not trained on, all seven classes among them.
    replace : bool
        Replace a bundle at `out` that was made from other inputs.

    Raises
    ------
    UserError
        The slices of the training, classes that are missing, or an `out` that is something else.
    """
    out = Path(out)
    check_writable(out)
    bundle, content = read_bundle(path), read_attributes(slices)["content_sha256"]
    if content == bundle.card.get("slices_sha256"):
        raise UserError(f"{slices}: are the slices of the bundle's own training; simulate others, with another seed")
    inputs = sha256_text(canonical_json([__version__, bundle.sha256, content, SEED, VIEWS]))
    if is_made(out, inputs, replace):
        _say(f"{out} is of this bundle and these slices, nothing to do")
        return out
    sample = _sample(bundle, slices)
    logits, hidden, known = _seen(bundle, sample)
    _say(f"{len(sample.images):,} windows, {len(logits) // len(sample.images)} views of each")
    statistics, measured = trust.calibrate(logits, hidden, known, bundle.gauss, bundle.clouds, bundle.parameters)
    measured["calibration"]["slices_sha256"] = content
    measured["rejection"]["score"] = bundle.card["rejection"]["score"]

    def rest(folder: Path) -> None:
        for file in bundle.path.iterdir():
            if file.name not in (*FILES, CARD):
                (shutil.copytree if file.is_dir() else shutil.copyfile)(file, folder / file.name)

    card = bundle.card | measured | {"inputs_sha256": inputs}
    write_bundle(out, bundle.network, bundle.clouds.points, bundle.statistics | statistics, card, rest)
    _say(f"{out}: calibration error {100 * measured['calibration']['ece']:.2f} %; {_covered(measured['coverage'])}")
    return out


def _sample(bundle: Bundle, slices: str | Path) -> Sample:
    """Windows of the classes that the bundle knows, in the proportion of its training, in each half alike."""
    try:
        # Of the validation images, which were drawn from the same file as those of the training.
        weight = np.array(bundle.card["metrics"]["confusion"]).sum(axis=1) / 2
        section(bundle)
    except (KeyError, ValueError):
        raise UserError(f"{bundle.path}: its card does not say how it was trained; train again") from None
    sample = load(slices, bundle.window, sys.maxsize)
    halves = [
        [np.flatnonzero((sample.label == k) & (trust.setting(sample.lattice) == first)) for first in (True, False)]
        for k in range(len(CLASS_NAMES))
    ]
    known = np.flatnonzero(weight)
    scale, rarest = min((len(own) / weight[k], k) for k in known for own in halves[k])
    for k in (rarest, *known):
        windows, lattices = int(scale * weight[k]), min(len(np.unique(sample.lattice[own])) for own in halves[k])
        if windows < FEWEST or lattices < FEWEST_LATTICES:
            raise UserError(
                f"{slices}: leaves {windows} windows and {lattices} lattices of {CLASS_NAMES[k]} in a half of it, "
                f"{FEWEST} and {FEWEST_LATTICES} are needed; simulate more of {CLASS_NAMES[rarest]}"
            )
    chosen = [thinned(own, int(scale * weight[k])) for k in known for own in halves[k]]
    return sample.of(np.concatenate(chosen))


def _seen(bundle: Bundle, sample: Sample) -> tuple[np.ndarray, np.ndarray, trust.Images]:
    """Logits, hidden layer and what is known of each window in its views; of a bundle of sharp images in one."""
    views = []
    for seed in range(SEED, SEED + (VIEWS if section(bundle).instrument else 1)):
        seen = see(bundle, sample.images, draw_views(bundle, len(sample.images), seed), seed)
        views.append((seen.logits, seen.hidden, *seen.known(sample)))
    logits, hidden, *known = (np.concatenate(column) for column in zip(*views))
    return logits, hidden, trust.Images(*known)


def _covered(table: dict) -> str:
    """What the intervals of odd lattices hold, in words."""
    shares = ", ".join(
        f"{name} {100 * row['in68']:.0f} and {100 * row['in90']:.0f}" if row["sigma68"] else f"{name} none promised"
        for name, row in table.items()
    )
    return f"intervals of 68 and 90 % hold the parameter in per cent of windows: {shares}"


def _say(message: str) -> None:
    print(f"calibrate: {message}", file=sys.stderr, flush=True)
