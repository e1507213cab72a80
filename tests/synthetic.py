"""Results made up for tests of the report: plain tables for sums by hand, and a film that looks like a real one."""

import itertools

import numpy as np
from scipy import ndimage

from hamscope.data.results import NO_PATTERN, Results
from hamscope.models import CLASS_NAMES

ATTRIBUTES = {
    "bundle_sha256": "5f" * 32,
    "bundle": {
        "accuracy": 0.9931, "network": {"hidden": 256}, "temperature": 1.2,
        "instrument": {"summary": "none: sharp simulated images", "psf_px": [0.0, 0.0]},
    },
    "config": {"stride": 8, "threshold": 0.5, "up": "bright", "confidence": "componentwise", "psf_px": None},
    "score": "componentwise", "bundle_is_default": False,
    "window": 100, "stride": 8, "inputs_sha256": "a0" * 32,
    "software": {"hamscope": "0.1.0", "numpy": "2.4.6", "torch": "2.13.0"},
}  # fmt: skip


def table(frames: list[dict], attributes: dict | None = None) -> Results:
    """Results of frames given as dicts: source, index, shares {class: share}, sure {class: share}, windows, up,
    independent, kelvin, direction, distance {class: sigma}, chances {class: probability} (by default the shares),
    parameter, half68, half90 {class: value}, psf_px, adaptive; whatever is left out is zero, unknown or 0.5 up."""
    F, rng = len(frames), np.random.default_rng(5)

    def column(name, default):
        return np.array([frame.get(name, default) for frame in frames])

    def by_class(name, default):
        values = np.array([[frame.get(name, {}).get(k, default) for k in CLASS_NAMES] for frame in frames], float)
        values[column("windows", 100) == 0] = np.nan
        return values

    for frame in frames:
        frame.setdefault("chances", frame.get("shares", {}))
    centres = 14 * np.eye(7) - 4
    return Results(
        fractions=by_class("shares", 0.0), confident_fractions=by_class("sure", 0.0),
        logits_mean=np.zeros((F, 7)), cloud_distance=by_class("distance", 9.0),
        probabilities=by_class("chances", 0.0), parameter=by_class("parameter", np.nan),
        parameter_half68=by_class("half68", np.nan), parameter_half90=by_class("half90", np.nan),
        psf_px=column("psf_px", np.nan).astype(float), adaptive=column("adaptive", 0).astype(np.uint8),
        n_windows=column("windows", 100), n_independent=column("independent", 9),
        up_fraction=column("up", 0.5).astype(float),
        logits_sample=np.full((F, 512, 7), np.nan, np.float32), preview=np.ones((F, 32, 32), np.uint8),
        temperature=column("kelvin", np.nan).astype(float), direction=column("direction", 0).astype(np.int8),
        cloud_sample=(centres[:, None] + rng.normal(size=(7, 512, 7))).astype(np.float32),
        source=[frame.get("source", "film.tif") for frame in frames], index=column("index", 0),
        class_maps=[np.zeros((4, 4), np.uint8)] * F, flag_maps=[np.ones((4, 4), np.uint8)] * F,
        attributes=ATTRIBUTES if attributes is None else attributes,
    )  # fmt: skip


def film(source: str, n_frames: int = 12, leader: str = "RF-2D", rival: str = "C-2D", sure: float = 0.9, seed: int = 1):
    """A film of 256 x 256 frames through its transition: blobs, maps, logits that fit them; first frame uniform."""
    rng = np.random.default_rng(seed)
    landscape = ndimage.gaussian_filter(rng.normal(size=(256, 256)), 5, mode="wrap")
    landscape += 0.5 * ndimage.gaussian_filter(rng.normal(size=(256, 256)), 1.5, mode="wrap") * landscape.std()
    ups = np.concatenate([[0.0], np.linspace(0.04, 0.96, n_frames - 1)]) if n_frames > 1 else np.array([0.5])
    base = table([{}])
    picks = [CLASS_NAMES.index(leader), CLASS_NAMES.index(rival), CLASS_NAMES.index("P*")]
    frames, maps, flags, previews, samples = [], [], [], [], []
    for index, up in enumerate(ups):
        m = abs(2 * up - 1)
        noise = [ndimage.gaussian_filter(rng.normal(size=(20, 20)), 2) * 8 for _ in picks]
        classes = np.array(picks, np.uint8)[
            np.argmax([noise[0] + 2.4 - m, noise[1] + m, noise[2] - 1 + 1.5 * m], axis=0)
        ]
        flag = (ndimage.gaussian_filter(rng.normal(size=(20, 20)), 1) * 3 < 2 * (2 * sure - 1) - m).astype(np.uint8)
        if index == 0 and n_frames > 1:
            classes[:], flag[:] = NO_PATTERN, 0
        n = int((classes != NO_PATTERN).sum())
        shares = {k: float((classes == i).sum() / n) for i, k in enumerate(CLASS_NAMES)} if n else {}
        certain = {k: float(((classes == i) & (flag == 1)).sum() / n) for i, k in enumerate(CLASS_NAMES)} if n else {}
        distance = {k: (0.5 + 2.5 * m if k == leader else 5 + i + m) for i, k in enumerate(CLASS_NAMES)}
        frames.append({"source": source, "index": index, "windows": n, "up": up, "independent": 4 * (n > 0),
                       "shares": shares, "sure": certain, "kelvin": 338 + 0.7 * index, "direction": 1,
                       "distance": distance})  # fmt: skip
        sample = np.full((512, 7), np.nan, np.float32)
        if n:
            centre, off = base.cloud_sample[classes.ravel(), rng.integers(0, 512, 400)], (1 - flag.ravel())[:, None]
            sample[:400] = centre + rng.normal(size=(400, 7)) * (0.2 + 3 * off) - off * 0.35 * centre
        maps.append(classes), flags.append(flag), samples.append(sample)
        previews.append(
            (landscape > np.quantile(landscape, 1 - up)).astype(np.uint8)
            if 0 < up < 1
            else np.zeros((256, 256), np.uint8)
        )
    made = table(frames)
    return Results(**{**made.__dict__, "class_maps": maps, "flag_maps": flags, "preview": np.array(previews),
                      "logits_sample": np.array(samples)})  # fmt: skip


def together(*parts: Results) -> Results:
    """Several results in one, rows in order."""
    joined = {}
    for name, value in parts[0].__dict__.items():
        if name in ("attributes", "cloud_sample"):
            joined[name] = value
        else:
            values = [getattr(part, name) for part in parts]
            joined[name] = np.concatenate(values) if isinstance(value, np.ndarray) else list(itertools.chain(*values))
    return Results(**joined)
