"""Every window of a 760 x 760 frame: all at once against one by one, and where the time goes.

    python tests/bench/dense_times.py        two minutes

Both sides run on one thread and are timed in processor seconds, so that other work on the machine disturbs little.
"""

import tempfile
import time
from pathlib import Path

import numpy as np
import tifffile
import torch
from scipy.ndimage import gaussian_filter

from hamscope.data.frames import list_frames, read_frame
from hamscope.data.instrument import condition
from hamscope.data.symmetry import elements, prepare
from hamscope.data.windows import binarize, patterned
from hamscope.learn import dense, parameters, tile
from hamscope.learn.bundle import default_bundle, read_bundle
from hamscope.learn.network import Outputs, PaperNet, last_layer, outputs

SIDE, ONE_BY_ONE = 760, 512


def seconds(function, repeat: int = 2):
    """Least processor time of a few calls, after one that is not counted, and what it returned."""
    function()
    times = []
    for _ in range(repeat):
        begin = time.process_time()
        found = function()
        times.append(time.process_time() - begin)
    return min(times), found


def frame() -> np.ndarray:
    """Two levels in equal halves, so that both majorities and all symmetry elements are needed."""
    smooth = gaussian_filter(np.random.default_rng(0).standard_normal((SIDE, SIDE)), 2)
    return (smooth > np.median(smooth)).astype(np.uint8)


def one_by_one(network, image: np.ndarray, known=None) -> float:
    """Windows a second, prepared and classified in batches."""
    window = network.arguments["window"]
    corners = np.random.default_rng(1).integers(0, SIDE - window, (ONE_BY_ONE, 2))
    windows = np.stack([image[y : y + window, x : x + window] for y, x in corners])
    spent, _ = seconds(lambda: outputs(network, prepare(windows, network.arguments["symmetry"]), known))
    return ONE_BY_ONE / spent


def at_once(network, image: np.ndarray, operations: np.ndarray, known=None, repeat: int = 1) -> tuple[float, Outputs]:
    """Seconds for all windows, and what the network says."""

    def go() -> Outputs:
        hidden = tile.hidden_layer(network, image, 1, operations, np.ones(operations.shape, bool), known)
        return Outputs(last_layer(network, hidden), hidden)

    return seconds(go, repeat)


def ratio(what: str, windows: int, spent: float, rate: float) -> None:
    print(
        f"{what}\n    at once: {windows / spent:,.0f} windows/s ({spent:.2f} s a frame)\n    one by one: {rate:.0f} "
        f"windows/s\n    ratio {windows / spent / rate:.0f}", flush=True,
    )  # fmt: skip


def default_network() -> None:
    """The bundle that comes with hamscope, told of the microscope, and what a frame costs beside the network."""
    bundle, image, known = read_bundle(default_bundle()), frame(), condition(1.0, True)
    symmetry, operations = seconds(lambda: elements(image, bundle.window, 1, "majority"))
    spent, said = at_once(bundle.network, image, operations, known)
    ratio("the default network, equal halves", operations.size, spent, one_by_one(bundle.network, image, known))
    distances, found = seconds(lambda: bundle.clouds.distance(said.logits), 1)
    best = said.logits.argmax(1)
    flags, _ = seconds(lambda: dense.confident(bundle, said, "default", found), 1)
    errors, _ = seconds(lambda: parameters.predict(bundle.parameters, said.hidden, best, operations.ravel() > 0), 1)
    chosen, _ = seconds(lambda: patterned(image, bundle.window, 1))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "frame.tif"
        tifffile.imwrite(path, image * np.uint8(200) + np.uint8(20))
        reading, _ = seconds(lambda: binarize(read_frame(list_frames([path])[0]), "otsu", "bright"))
        band = dense.classify_band(image, bundle, 1, 0, SIDE - bundle.window + 1, "default", known)
        writing, _ = seconds(lambda: np.savez(Path(folder) / "part.npz", **band._asdict()), 1)
    print(
        f"a frame of {SIDE} x {SIDE}, {operations.size:,} windows, seconds of one core:\n    read and threshold "
        f"{reading:.2f}, patterns and symmetry {chosen + symmetry:.2f}, network {spent:.2f}, distances "
        f"{distances:.2f}, flags {flags:.2f}, parameters {errors:.2f}, store {writing:.2f}", flush=True,
    )  # fmt: skip


def paper_network() -> None:
    """The paper's network of hidden width 64 (its weights do not matter), one symmetry element and all 16."""
    torch.manual_seed(0)
    network, image = PaperNet(100, "valid", hidden=64).eval(), frame()
    rate = one_by_one(network, image)
    grid = np.indices((SIDE - 99, SIDE - 99))
    for what, operations in (("one symmetry element", 0 * grid[0]), ("all 16 elements", (grid[0] * 4 + grid[1]) % 16)):
        spent, _ = at_once(network, image, operations.astype(np.uint8))
        ratio(f"the paper's network, hidden 64, {what}", operations.size, spent, rate)


if __name__ == "__main__":
    torch.set_num_threads(1)
    default_network()
    paper_network()
