"""The bundle: a trained network as a folder that can be passed on.

    weights.safetensors      the weights
    clouds.safetensors       training logits of every class, for the confidence of III C
    statistics.safetensors   what `hamscope.learn.trust` measured: means and whitening of the hidden layer, regression
                             of the parameter, confusions by resolution
    bundle.json              the card: network, classes, preprocessing, instrument, metrics, calibration, thresholds of
                             the scores, hashes, licence

No pickle anywhere: reading a bundle from elsewhere runs no code of it.
"""

import json
import os
import shutil
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.numpy import load_file as load_arrays
from safetensors.numpy import save as arrays_to_bytes
from safetensors.torch import load_file
from safetensors.torch import save as tensors_to_bytes
from torch import nn

from hamscope.errors import ContractError, UserError
from hamscope.learn.confidence import Clouds
from hamscope.learn.network import build
from hamscope.learn.parameters import COMPONENTS
from hamscope.learn.scores import Gauss
from hamscope.learn.trust import SCORES
from hamscope.models import CLASS_NAMES, MODELS
from hamscope.provenance import check_writable, sha256_file

SCHEMA = "hamscope-bundle"
SCHEMA_VERSION = 2
CARD, WEIGHTS, CLOUDS = "bundle.json", "weights.safetensors", "clouds.safetensors"
STATISTICS = "statistics.safetensors"
FILES = (WEIGHTS, CLOUDS, STATISTICS)
MAX_CARD = 2**20  # bytes; a card has a few thousand
DEFAULT = Path(__file__).parent.parent / "bundles" / "default"
_PARAMETERS = "parameters."


@dataclass(frozen=True)
class Bundle:
    """A bundle in memory: the network ready to evaluate, clouds of training logits, statistics, and the card."""

    path: Path
    network: nn.Module
    clouds: Clouds
    statistics: dict[str, np.ndarray]
    card: dict

    @property
    def window(self) -> int:
        """Side of the windows that the network was trained on, in pixels."""
        return self.card["network"]["window"]

    @property
    def essentials(self) -> dict:
        """What a result has to say of the network that gave it; the verdict needs nothing else of the bundle.

        `resolution` holds `psf_px` (S,) and `counts` (S, 3, 2, 7, 7) of `hamscope.learn.resolution`; `trained` the
        smallest and largest parameter trained on, by class (for percolation of the smaller of p and 1 - p), and
        `coverage` what the card says of its error bars.
        """
        folded = np.array([model.family == "percolation" for model in MODELS])[:, None]
        knots = self.parameters["knots"].astype(float)
        knots = np.where(folded, np.minimum(knots, 1 - knots), knots)
        return {
            "accuracy": self.card["metrics"]["accuracy"],
            "instrument": self.card["instrument"],
            "network": self.card["network"],
            "temperature": self.card["calibration"]["temperature"],
            "rejection": self.card["rejection"],
            "resolution": {
                "psf_px": self.card["resolution"]["psf_px"],
                "counts": self.statistics["resolution"].tolist(),
            },
            "trained": {
                name: [float(own.min()), float(own.max())]
                for name, own in zip(CLASS_NAMES, knots)
                if np.isfinite(own).all()
            },
            "coverage": {
                name: {key: value for key, value in own.items() if value is not None and np.isfinite(value)}
                for name, own in self.card["coverage"].items()
            },
        }  # fmt: skip

    @cached_property
    def gauss(self) -> Gauss:
        """Means and whitening of the hidden layer."""
        return Gauss(self.statistics["gauss.means"], self.statistics["gauss.white"])

    @cached_property
    def parameters(self) -> dict[str, np.ndarray]:
        """What `hamscope.learn.parameters.predict` needs."""
        return {
            name.removeprefix(_PARAMETERS): array
            for name, array in self.statistics.items()
            if name.startswith(_PARAMETERS)
        }

    @cached_property
    def sha256(self) -> str:
        """Hash of the card, which holds the hashes of the weights and of the clouds."""
        return sha256_file(self.path / CARD)


def write_bundle(
    folder: str | Path, network: nn.Module, clouds: list[np.ndarray], statistics: dict, card: dict, extra=None
) -> Path:
    """Write a bundle, whole or not at all; a bundle that is there is replaced.

    Parameters
    ----------
    clouds : list of 7 ndarrays, shape (n_k, 7), float32
        Training logits of each class.
    statistics : dict of ndarray
        By name; see `hamscope.learn.trust`.
    card : dict
        What `bundle.json` says besides schema, network and hashes.
    extra : callable, optional
        Called with the temporary folder, to put pictures and logs into it.
    """
    folder = Path(folder)
    check_writable(folder)
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}.part")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    try:
        # Not with save_file, which gives files that nobody else may read.
        state = {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
        (temporary / WEIGHTS).write_bytes(tensors_to_bytes(state))
        points = {name: np.ascontiguousarray(cloud, np.float32) for name, cloud in zip(CLASS_NAMES, clouds)}
        (temporary / CLOUDS).write_bytes(arrays_to_bytes(points))
        arrays = {name: np.ascontiguousarray(array) for name, array in statistics.items()}
        (temporary / STATISTICS).write_bytes(arrays_to_bytes(arrays))
        card = card | {
            "schema": SCHEMA, "schema_version": SCHEMA_VERSION, "classes": list(CLASS_NAMES),
            "network": network.arguments, "sha256": {name: sha256_file(temporary / name) for name in FILES},
        }  # fmt: skip
        (temporary / CARD).write_text(json.dumps(card, indent=2, sort_keys=True) + "\n")
        if extra:
            extra(temporary)
        for path in (*temporary.iterdir(), temporary):
            _flush(path)
        old = folder.with_name(f".{folder.name}.{os.getpid()}.old")
        if folder.exists():
            os.replace(folder, old)
        os.replace(temporary, folder)
        _flush(folder.parent)
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return folder


def is_made(folder: Path, inputs: str, replace: bool) -> bool:
    """Whether `folder` is the bundle of these inputs already; UserError where it is what may not be replaced."""
    if not folder.exists():
        return False
    try:
        found = read_card(folder)["inputs_sha256"]
    except (ContractError, KeyError):
        raise UserError(f"{folder}: is there already and is no bundle of hamscope; choose another --out") from None
    if found != inputs and not replace:
        raise UserError(f"{folder}: was made from other inputs; add --replace or choose another --out")
    return found == inputs


def default_bundle() -> Path:
    """The bundle that comes with hamscope; raises UserError where this installation has none."""
    if not (DEFAULT / CARD).is_file():
        raise UserError("this installation has no default bundle; give one of `hamscope train` with --bundle")
    return DEFAULT


def read_card(path: str | Path) -> dict:
    """The card of a bundle, checked; raises ContractError where there is none, or another schema or classes."""
    path = Path(path)
    if not (path / CARD).is_file():
        raise ContractError(f"{path}: is no bundle (no {CARD}); give a folder made by `hamscope train`")
    try:
        if (path / CARD).stat().st_size > MAX_CARD:
            raise ContractError(f"{path}/{CARD}: is larger than the {MAX_CARD} bytes of a card; train again")
        card = json.loads((path / CARD).read_text())
        schema = card["schema"], card["schema_version"]
        if schema != (SCHEMA, SCHEMA_VERSION):
            raise ContractError(
                f"{path}: schema = {schema}, this hamscope reads {(SCHEMA, SCHEMA_VERSION)}; train again"
            )
        classes, outputs = card["classes"], card["network"]["classes"]
        _ = [card["sha256"][name] for name in FILES], float(card["metrics"]["accuracy"])
        _screen_trust(card)
    except OSError as error:
        raise ContractError(f"{path}/{CARD}: cannot be read ({error.strerror}); train again") from None
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        raise ContractError(f"{path}/{CARD}: is not a bundle's card; train again") from None
    if classes != list(CLASS_NAMES) or outputs != len(CLASS_NAMES):
        raise ContractError(
            f"{path}: its classes are {classes}, {outputs} outputs, not {list(CLASS_NAMES)}; train again"
        )
    return card


def read_bundle(path: str | Path, device: str = "cpu") -> Bundle:
    """Read a bundle and check it against its own hashes and card.

    Raises
    ------
    ContractError
        Missing, of another network or schema, a wrong hash, or weights that are not finite numbers.
    """
    path = Path(path)
    card = read_card(path)
    for name in FILES:
        if not (path / name).is_file():
            raise ContractError(f"{path}: {name} is missing; train again")
        if sha256_file(path / name) != card["sha256"][name]:
            raise ContractError(f"{path}/{name}: does not agree with its hash in {CARD}; train again")
    try:
        # On "meta" nothing is allocated and nothing drawn: a card may claim any size, the weights have to have it.
        with torch.device("meta"):
            network = build(**card["network"])
        network.load_state_dict(load_file(path / WEIGHTS), assign=True)
        clouds, statistics = load_arrays(path / CLOUDS), load_arrays(path / STATISTICS)
    except (RuntimeError, TypeError, ValueError, LookupError, ArithmeticError, SafetensorError, UserError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ContractError(f"{path}: weights and card are not of one network ({reason}); train again") from None
    finite = all(
        tensor.dtype == torch.float32 and bool(torch.isfinite(tensor).all()) for tensor in network.state_dict().values()
    )
    points = [clouds.get(name) for name in CLASS_NAMES]
    if not finite or any(
        p is None or p.ndim != 2 or p.shape[1] != len(CLASS_NAMES) or not np.isfinite(p).all() for p in points
    ):
        raise ContractError(
            f"{path}: its weights or clouds are not finite float32 numbers of the right shape; train again"
        )
    wrong = _wrong_statistics(statistics, network.full2.in_features, len(card["resolution"]["psf_px"]))
    if wrong:
        raise ContractError(f"{path}/{STATISTICS}: {wrong}; train again")
    return Bundle(path, network.to(device).eval(), Clouds(points), statistics, card)


def _screen_trust(card: dict) -> None:
    """Raise ValueError, KeyError or TypeError where a card lacks what the verdict needs of it."""
    instrument, rejection = card["instrument"], card["rejection"]
    numbers = [card["calibration"]["temperature"], *instrument["psf_px"], *card["resolution"]["psf_px"]]
    numbers += [rejection["limits"][name] for name in rejection["limits"]]
    if not all(isinstance(number, int | float) and np.isfinite(number) for number in numbers):
        raise ValueError("numbers that are none")
    known = {rejection["score"]} <= set(rejection["limits"]) <= set(SCORES)
    if numbers[0] <= 0 or len(instrument["psf_px"]) != 2 or not known:
        raise ValueError("a temperature, a range or a score that is none")
    if not isinstance(instrument["summary"], str) or not all(
        value is None or isinstance(value, int | float) for own in card["coverage"].values() for value in own.values()
    ):
        raise TypeError("a summary or a coverage that is none")


def _wrong_statistics(statistics: dict[str, np.ndarray], hidden: int, widths: int) -> str | None:
    """What is not as `hamscope.learn.trust` makes it, None where all is; NaN stands for a class without images."""
    classes, free = len(CLASS_NAMES), None
    shapes = {"gauss.means": (classes, hidden), "gauss.white": (hidden, hidden)}
    shapes["resolution"] = (widths, 3, 2, classes, classes)
    components = min(COMPONENTS, hidden)
    terms = 1 + hidden + components * (components + 1) // 2
    own = {
        "mean": (hidden,), "scale": (hidden,), "axes": (hidden, components), "value": (terms,), "spread": (terms,),
        "limits": (2,), "near": (), "slope": (), "deviation": (), "knots": (free,), "factors": (2,),
    }  # fmt: skip
    shapes |= {_PARAMETERS + name: (classes, *shape) for name, shape in own.items()}
    shapes[_PARAMETERS + "whitening"] = (hidden, free)
    for name, shape in shapes.items():
        array = statistics.get(name)
        if array is None or array.ndim != len(shape) or any(w not in (n, free) for n, w in zip(array.shape, shape)):
            return f"{name} is missing or has another shape than {shape}"
        if array.dtype != (np.int32 if name == "resolution" else np.float32):
            return f"{name} holds {array.dtype}"
        # An infinite factor says that too few lattices were there to promise any width.
        if np.isinf(array).any() and name != _PARAMETERS + "factors":
            return f"{name} holds infinite numbers"
    if statistics["resolution"].min(initial=0) < 0 or min(statistics[_PARAMETERS + "knots"].shape) < 2:
        return "counts below zero, or no range of parameters"
    return None


def _flush(path: Path) -> None:
    """Have a file or folder on the disk, so that no crash leaves a bundle of empty files."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
