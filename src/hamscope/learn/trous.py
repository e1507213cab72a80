"""Kernels for the CPU: convolution, pooling and means at every position of a frame, which overlapping windows share.

Pooling by 2 keeps every second position, counted from the corner of the window; windows that begin elsewhere keep
others.  So all positions are kept here, and what follows reaches over twice the distance, "with holes" (à trous [1]_):
the map behind l poolings has one value for each pixel, and its neighbours in a window are 2^l pixels apart.  At a
stride, most of these positions belong to no window: those a multiple of gcd(stride, 2^l) apart are enough.

A kernel that is the same under the square has 6 numbers instead of 25.  Adding up the pixels that share one first
leaves a matrix product of 6 / 25 of the size.

Arrays are channels last, float32.  Shape letters: H, W = positions of a map; C, D = channels in and out.

References
----------
.. [1] Giusti et al. (2013), doi:10.1109/ICIP.2013.6738831.
"""

import numpy as np
from numba import njit


@njit(cache=True, nogil=True)
def square_conv(x, weight, step):
    """A 5 x 5 convolution without padding whose kernels are the same under the square, without its bias.

    Parameters
    ----------
    x : ndarray, shape (H, W, C), float32
    weight : ndarray, shape (6 * C, D), float32
        Rows by orbit, then channel; the orbits by their distances from the middle: 00, 10, 11, 20, 21, 22.
    step : int
        Positions between two neighbours under the kernel.

    Returns
    -------
    ndarray, shape (H - 4 step, W - 4 step, D), float32
    """
    height, width, channels = x.shape[0] - 4 * step, x.shape[1] - 4 * step, x.shape[2]
    found = np.empty((height, width, weight.shape[1]), np.float32)
    sums = np.empty((width, 6 * channels), np.float32)
    near, far = np.empty((x.shape[1], channels), np.float32), np.empty((x.shape[1], channels), np.float32)
    for row in range(height):
        middle = x[row + 2 * step]
        _add(x[row + step], x[row + 3 * step], near)
        _add(x[row], x[row + 4 * step], far)
        for column in range(width):
            a, b, m, d, e = column, column + step, column + 2 * step, column + 3 * step, column + 4 * step
            line = sums[column]
            # A loop each: with more arrays in one, the compiler would not dare to use vectors.
            for c in range(channels):
                line[c] = middle[m, c]
            for c in range(channels):
                line[channels + c] = near[m, c] + (middle[b, c] + middle[d, c])
            for c in range(channels):
                line[2 * channels + c] = near[b, c] + near[d, c]
            for c in range(channels):
                line[3 * channels + c] = far[m, c] + (middle[a, c] + middle[e, c])
            for c in range(channels):
                line[4 * channels + c] = (far[b, c] + far[d, c]) + (near[a, c] + near[e, c])
            for c in range(channels):
                line[5 * channels + c] = far[a, c] + far[e, c]
        np.dot(sums, weight, found[row])
    return found


@njit(cache=True, nogil=True)
def _add(a, b, out):
    """The sum of two rows of a map."""
    a, b, out = a.reshape(-1), b.reshape(-1), out.reshape(-1)
    for i in range(len(out)):
        out[i] = a[i] + b[i]


@njit(cache=True, nogil=True)
def bias_relu(x, bias):
    """max(x + bias, 0), in place."""
    for row in range(x.shape[0]):
        for column in range(x.shape[1]):
            for c in range(x.shape[2]):
                x[row, column, c] = max(x[row, column, c] + bias[c], np.float32(0))


@njit(cache=True, nogil=True)
def pool_bias_relu(x, bias, step, every):
    """The largest of 2 x 2 neighbours `step` apart, plus the bias, at least 0; at each `every`-th position."""
    height, width = -(-(x.shape[0] - step) // every), -(-(x.shape[1] - step) // every)
    found = np.empty((height, width, x.shape[2]), np.float32)
    for row in range(height):
        for column in range(width):
            r, q = row * every, column * every
            for c in range(x.shape[2]):
                largest = max(max(x[r, q, c], x[r, q + step, c]), max(x[r + step, q, c], x[r + step, q + step, c]))
                found[row, column, c] = max(largest + bias[c], np.float32(0))
    return found


@njit(cache=True, nogil=True)
def box_means(x, step, count, every, out):
    """Means over count x count positions `step` apart, from each `every`-th position on, into `out`.

    Sums slide from one position to the next, in float64, so that nothing is lost however far they go.
    """
    channels, width = x.shape[2], x.shape[1]
    reach = step * count
    columns = width - reach + step
    scale = 1.0 / (count * count)
    down, along = np.zeros((step, width, channels)), np.empty((columns, channels))
    for row in range((out.shape[0] - 1) * every + 1):
        mine = down[row % step]
        if row < step:
            for i in range(count):
                for column in range(width):
                    for c in range(channels):
                        mine[column, c] += x[row + i * step, column, c]
        else:
            enter, leave = x[row + reach - step], x[row - step]
            for column in range(width):
                for c in range(channels):
                    mine[column, c] += np.float64(enter[column, c]) - np.float64(leave[column, c])
        if row % every:
            continue
        for column in range(columns):
            here = along[column]
            if column < step:
                here[:] = 0
                for i in range(count):
                    for c in range(channels):
                        here[c] += mine[column + i * step, c]
            else:
                before, enter, leave = along[column - step], mine[column + reach - step], mine[column - step]
                for c in range(channels):
                    here[c] = before[c] + enter[c] - leave[c]
        for column in range(out.shape[1]):
            for c in range(channels):
                out[row // every, column, c] = along[column * every, c] * scale
