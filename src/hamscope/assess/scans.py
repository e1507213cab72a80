"""Windows of real frames, as foreign patterns."""

import numpy as np

from hamscope.data.frames import list_frames, read_frame
from hamscope.data.windows import binarize, windows_of

MOST = 200  # windows of a frame


def windows_of_scans(paths: list[str], window: int) -> dict[str, np.ndarray]:
    """Windows (n, L, L) uint8 of frames thresholded by Otsu, on a regular grid: {"scans": ...}, all frames together."""
    found = []
    for ref in list_frames(list(paths), window):
        image = binarize(read_frame(ref), "otsu", "bright")
        stride = max(1, int(np.sqrt(np.prod(np.array(image.shape) - window + 1) / MOST)))
        grid = windows_of(image, window, stride, 0, (image.shape[0] - window) // stride + 1)
        windows = grid.reshape(-1, window, window)
        ups = windows.mean((1, 2))
        found.append(windows[(ups > 0.02) & (ups < 0.98)])
    return {"scans": np.concatenate(found)}
