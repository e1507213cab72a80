"""Kernels of the zero-temperature field sweep: thresholds, candidates of a window, and the avalanches themselves.

`rfim` has the physics and the proof.  Here a slab is one float64 a site, its *level*: while a site is down, the field
t_i(k) = n_i - h_i - 2 k at which it flips as its k neighbours are up now; once it is up, the field F_i at which it did.
Each neighbour that flips takes 2 from the level of a site that is down.  Levels only fall, so an entry of a queue is
out of date when the level of its site is no longer the value in it.

All arrays over the slab have its halo, shape (p, n1, n2), p = P + 2.  A *site* is a flat index into them.
"""

import numpy as np
from numba import njit

from hamscope.sim import rng

# Why `settle` returned: nothing left up to the end of the window, the budget is spent, or a queue is full.
EMPTY, SPENT, FULL = 0, 1, 2
_EVALUATED, _TOLD = 1, 2
# Sites that are searched at a time.
_BLOCK = 32
# Counters of the queue, as `settle` keeps them between calls.
NEXT, HEAP, STACK, BELOW, ABOVE, FLIPPED = range(6)


@njit(inline="always")
def _field(fields, drawn, plane, inside, n_inside):
    """h_i of own plane `plane` (without halo): kept in an array, or drawn again where that array is empty."""
    if fields.size > 0:
        return fields[plane * n_inside + inside]
    disorder, key, item, first = drawn
    return disorder * rng.normal(key, item, 0, first + plane * n_inside + inside)


@njit(cache=True, nogil=True)
def fill_fields(values, drawn):
    """Fill `values`, shape (sites,), with the fields of consecutive sites; `drawn` = (R/J, key, item, first site)."""
    disorder, key, item, first = drawn
    for k in range(values.size):
        values[k] = disorder * rng.normal(key, item, 0, first + k)


@njit(inline="always")
def _bonds_inside(shape, periodic, j, x):
    """Number of bonds of a site within its plane."""
    _, n1, n2 = shape
    bonds = (j > 0 or periodic[1]) + (j < n1 - 1 or periodic[1])
    return bonds + (x > 0 or periodic[2]) + (x < n2 - 1 or periodic[2])


@njit(cache=True, nogil=True)
def fill_levels(levels, fields, drawn, bonds, periodic):
    """Set the own sites to t_i(0) = n_i - h_i; `bonds`, shape (P,), counts the bonds along axis 0."""
    p, n1, n2 = levels.shape
    for i in range(1, p - 1):
        for j in range(n1):
            for x in range(n2):
                n = bonds[i - 1] + _bonds_inside(levels.shape, periodic, j, x)
                levels[i, j, x] = n - _field(fields, drawn, i - 1, j * n2 + x, n1 * n2)


@njit(inline="always")
def _neighbours(site, shape, periodic, wraps):
    """The six neighbours of an own site, those in the halo too; the site itself where there is none.

    `wraps`: the slab is the whole lattice and periodic along axis 0, so its neighbours are own sites.
    """
    p, n1, n2 = shape
    plane = n1 * n2
    i = site // plane
    inside = site - i * plane
    j = inside // n2
    x = inside - j * n2
    below = site + (p - 3) * plane if wraps and i == 1 else site - plane
    above = site - (p - 3) * plane if wraps and i == p - 2 else site + plane
    front = site - n2 if j > 0 else (site + plane - n2 if periodic[1] else site)
    back = site + n2 if j < n1 - 1 else (site - plane + n2 if periodic[1] else site)
    left = site - 1 if x > 0 else (site + n2 - 1 if periodic[2] else site)
    right = site + 1 if x < n2 - 1 else (site - n2 + 1 if periodic[2] else site)
    return below, above, front, back, left, right


@njit(cache=True, nogil=True)
def start_up(levels, periodic, wraps):
    """Take 2 from the level of every own site for each neighbour that is up at the start (level minus infinity)."""
    flat = levels.reshape(-1)
    plane = levels.shape[1] * levels.shape[2]
    for site in range(plane, flat.size - plane):
        if flat[site] > -np.inf:
            for other in _neighbours(site, levels.shape, periodic, wraps):
                if flat[other] == -np.inf:
                    flat[site] -= 2.0


@njit(cache=True, nogil=True)
def find_levels(flat, low, high, first, sites):
    """Find the sites whose level lies in (low, high]; `flat` begins at site `first`.

    Returns how many there are, and writes them into `sites` as far as there is room.
    """
    found, room = 0, sites.size - _BLOCK
    for start in range(0, flat.size, _BLOCK):
        stop = min(start + _BLOCK, flat.size)
        n = 0
        for k in range(start, stop):
            n += (flat[k] > low) & (flat[k] <= high)
        if n > 0 and found <= room:
            at = found
            for k in range(start, stop):
                sites[at] = first + k
                at += (flat[k] > low) & (flat[k] <= high)
        found += n
    return found


@njit(inline="always")
def _push(values, sites, size, value, site):
    """Add an entry to the binary heap of the first `size` entries."""
    k = size
    while k > 0 and values[(k - 1) >> 1] > value:
        values[k], sites[k] = values[(k - 1) >> 1], sites[(k - 1) >> 1]
        k = (k - 1) >> 1
    values[k], sites[k] = value, site


@njit(inline="always")
def _drop(values, sites, size):
    """Remove the least entry of a heap that has `size` entries without it."""
    value, site = values[size], sites[size]
    k = 0
    while 2 * k + 1 < size:
        child = 2 * k + 1
        if child + 1 < size and values[child + 1] < values[child]:
            child += 1
        if values[child] >= value:
            break
        values[k], sites[k] = values[child], sites[child]
        k = child
    values[k], sites[k] = value, site


@njit(cache=True, nogil=True)
def receive(levels, message, low_halo, heap_values, heap_sites, counters):
    """Put the flips of a neighbouring slab's outermost plane into the halo and the heap.

    message : ndarray, shape (n,), of (site within the plane, field); the heap has room for n more.
    """
    flat = levels.reshape(-1)
    offset = 0 if low_halo else flat.size - levels.shape[1] * levels.shape[2]
    for k in range(message.size):
        site, value = offset + message[k].site, message[k].field
        if value < flat[site]:
            flat[site] = value
            _push(heap_values, heap_sites, counters[HEAP], value, site)
            counters[HEAP] += 1


@njit
def _evaluate(flat, site, shape, periodic, wraps, high, fields, drawn, bonds, ordered):
    """min over k of max(t(k), k-th smallest F of the neighbours), of those that flip in this window or earlier."""
    n = 0
    for other in _neighbours(site, shape, periodic, wraps):
        value = flat[other]
        if other == site or not value <= high:
            continue
        k = n
        while k > 0 and ordered[k - 1] > value:
            ordered[k] = ordered[k - 1]
            k -= 1
        ordered[k] = value
        n += 1
    _, n1, n2 = shape
    i = site // (n1 * n2) - 1
    inside = site - (i + 1) * n1 * n2
    level = bonds[i] + _bonds_inside(shape, periodic, inside // n2, inside % n2)
    level = level - _field(fields, drawn, i, inside, n1 * n2)
    best = level
    for k in range(n):
        if ordered[k] >= best:
            break
        # One by one, as neighbours take it from a level: the same rounding.
        level = level - 2.0
        best = min(best, max(level, ordered[k]))
    return best


@njit(cache=True, nogil=True)
def settle(levels, announced, fields, drawn, bonds, periodic, wraps, high, candidates, heap, stack, below, above,
           counters, clock, budget, ordered):  # fmt: skip
    """Let the sites flip whose fields are at most `high`, in ascending order, until one of EMPTY, SPENT, FULL.

    The members of an avalanche share one field and run over a stack, which finds more of its sites in the cache than a
    queue would; what flips later waits in the heap or among the candidates of the window.  Where the slab has
    neighbours, a flip can arrive late: its field is below one that has been dealt with.  Then the sites it touches are
    evaluated from scratch and passed on.

    Parameters
    ----------
    announced : ndarray, shape (p n1 n2,), uint8
        _TOLD where the neighbours know of the flip, _EVALUATED where they do not and the level was evaluated from
        scratch, so that it may be the field of a neighbour and not t(k); of length 1 where the slab is the
        whole lattice.
    candidates, heap : pairs of ndarrays (fields, sites)
        Sites whose level lay in the window when it began, ascending; sites whose level fell into it since.
    below, above : structured ndarrays of (site, field)
        Flips of the own outermost planes, for the neighbouring slabs.
    counters : ndarray, shape (6,), int64
    clock : ndarray, shape (2,), float64
        The largest field dealt with in this window, and the field of the avalanche that is under way.
    budget : int
        Flips after which to return, so that slabs can hear of each other.
    """
    flat = levels.reshape(-1)
    plane = levels.shape[1] * levels.shape[2]
    shared = announced.size > 1
    candidate_values, candidate_sites = candidates
    heap_values, heap_sites = heap
    following, size, height = counters[NEXT], counters[HEAP], counters[STACK]
    n_below, n_above, flipped = counters[BELOW], counters[ABOVE], counters[FLIPPED]
    latest, value = clock[0], clock[1]
    status = SPENT
    while budget > 0:
        # One flip adds at most six entries.
        if size + 6 > heap_values.size or height + 6 > stack.size or max(n_below, n_above) >= below.size:
            status = FULL
            break
        if height > 0:
            height -= 1
            site = stack[height]
            if size > 0 and heap_values[0] < value:
                # An earlier avalanche has arrived: this one waits.
                _push(heap_values, heap_sites, size, value, site)
                size += 1
                continue
        else:
            if following < candidate_sites.size and (size == 0 or candidate_values[following] <= heap_values[0]):
                value, site = candidate_values[following], candidate_sites[following]
                following += 1
            elif size > 0:
                value, site = heap_values[0], heap_sites[0]
                size -= 1
                _drop(heap_values, heap_sites, size)
            else:
                status = EMPTY
                break
        if flat[site] != value:
            continue
        budget -= 1
        in_order, fresh = value >= latest, True
        latest = max(latest, value)
        if shared:
            fresh = announced[site] != _TOLD
            announced[site] = _TOLD
            if site < plane:
                others = (site + plane, site, site, site, site, site)
            elif site >= flat.size - plane:
                others = (site - plane, site, site, site, site, site)
            else:
                others = _neighbours(site, levels.shape, periodic, wraps)
                flipped += fresh
                if others[0] < plane:
                    below[n_below].site, below[n_below].field = others[0], value
                    n_below += 1
                    others = (site, others[1], others[2], others[3], others[4], others[5])
                if others[1] >= flat.size - plane:
                    above[n_above].site, above[n_above].field = others[1] - (flat.size - plane), value
                    n_above += 1
                    others = (others[0], site, others[2], others[3], others[4], others[5])
        else:
            others = _neighbours(site, levels.shape, periodic, wraps)
            flipped += 1
        for other in others:
            level = flat[other]
            if not level > value:
                continue
            if level > high:
                # Not yet reached in this window: it only has to know how many neighbours are up.
                if not fresh:
                    continue
                new = level - 2.0
                if new > high:
                    flat[other] = new
                    continue
                if in_order:
                    new = max(new, value)
                else:
                    announced[other] = _EVALUATED
                    new = _evaluate(flat, other, levels.shape, periodic, wraps, high, fields, drawn, bonds, ordered)
            elif in_order and (not shared or announced[other] == 0):
                new = max(level - 2.0, value)
            else:
                new = _evaluate(flat, other, levels.shape, periodic, wraps, high, fields, drawn, bonds, ordered)
                if new >= level:
                    continue
                if announced[other] != _TOLD:
                    announced[other] = _EVALUATED
            flat[other] = new
            if new == value:
                stack[height] = other
                height += 1
            else:
                _push(heap_values, heap_sites, size, new, other)
                size += 1
    counters[NEXT], counters[HEAP], counters[STACK] = following, size, height
    counters[BELOW], counters[ABOVE], counters[FLIPPED] = n_below, n_above, flipped
    clock[0], clock[1] = latest, value
    return status
