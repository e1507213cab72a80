"""The random-field Ising model at zero temperature, swept adiabatically through its field.

    E(s) = - sum_<ij> s_i s_j - sum_i (H + h_i) s_i,        s_i = +1 or -1,        J = 1,

with h_i Gaussian of width R, drawn once per sample.  H rises from minus infinity with all spins down; a spin flips as
soon as that lowers the energy, and an avalanche runs its course before the field moves [1]_.  With k of its n_i
neighbours up, a spin flips at

    t_i(k) = n_i - h_i - 2 k.

The whole sweep is one array, the *flip field* F_i at which site i flips.  The state at H is the least one that is
stable there (no-passing [2]_: it does not depend on the order of the flips), hence F is the greatest solution of

    F_i = min over k of max( t_i(k), k-th smallest F of the neighbours ),        k = 0 term: t_i(0),

and every member of an avalanche has the F of its trigger, to the last bit.  The solver goes through windows of H in
ascending order.  Within a window it lets sites flip as Dijkstra's algorithm settles them, smallest F first; slabs tell
each other of the flips at their cuts and correct each other until nothing changes, and only then the next window
begins.  Sorting the sites of one window at a time, instead of all at the start as in [3]_, keeps the memory at one
float64 a site and the sites of a window in the cache.  F is made of comparisons and of t_i, whose 2 k are taken one 2
at a time, so neither windows nor slabs can change a bit of it.

A downward sweep is the upward sweep of -h, with -H.  Shape letters: P = planes of the slab, p = P + 2 with its halo.

References
----------
.. [1] Sethna et al., Phys. Rev. Lett. 70, 3347 (1993), doi:10.1103/PhysRevLett.70.3347.
.. [2] Middleton, Phys. Rev. Lett. 68, 670 (1992), doi:10.1103/PhysRevLett.68.670.
.. [3] Kuntz et al., Comput. Sci. Eng. 1, 73 (1999), doi:10.1109/5992.774844.
"""

from typing import NamedTuple

import numpy as np

from hamscope.sim import avalanches
from hamscope.sim.branch import avalanche_counts, stable_states
from hamscope.sim.lattice import Slab

__all__ = ["FieldSweep", "Gaussian", "avalanche_counts", "flip_fields", "random_fields", "stable_states"]

# Share of the sites that should be candidates of one window: many windows are many scans of the slab, few are large
# heaps, much memory for them, and slabs that run far ahead of each other.  Small lattices need only a few windows.
_WINDOW_SHARE, _WINDOW_LEAST = 1 / 32, 16_000
# By which the width of one window can differ from that of the one before.
_STEPS = 2.0 ** np.arange(-4, 3)
# Flips of a slab between two exchanges.
_BUDGET = 4_000
_MESSAGE = np.dtype([("site", np.int64), ("field", np.float64)])


class Gaussian(NamedTuple):
    """Random fields h_i that are drawn whenever they are needed and never stored.

    `disorder` is their width R/J; minus the width gives -h_i, hence the downward sweep.  `key` and `item` as in
    `hamscope.sim.rng`; a field belongs to its global site.
    """

    disorder: float
    key: np.uint64
    item: int


def random_fields(slab: Slab, disorder: float, key, item: int) -> np.ndarray:
    """Gaussian fields h_i of width `disorder` (R/J), shape (P, n1, n2), float64, keyed by the global site."""
    fields = np.empty((slab.n_planes, *slab.lattice.shape[1:]))
    avalanches.fill_fields(fields.reshape(-1), _drawn(slab, Gaussian(disorder, key, item)))
    return fields


def flip_fields(slab: Slab, fields, up: np.ndarray | None = None, window: float | None = None) -> np.ndarray:
    """The field at which every site flips in an upward sweep, shape (P, n1, n2), float64, in units of J.

    Minus infinity where the site was up at the start.  Parameters as in `FieldSweep`; collective over the slabs.
    """
    sweep = FieldSweep(slab, fields, up, window)
    while not sweep.done:
        sweep.advance()
    return sweep.flips


class FieldSweep:
    """An upward sweep that goes on window by window and can be stopped between two; collective over the slabs.

    Parameters
    ----------
    fields : ndarray, shape (P, n1, n2), float64, or Gaussian
        The random fields h_i in units of J.
    up : ndarray, shape (P, n1, n2), bool, optional
        The state from which the sweep starts, by default all down.  It has to be stable at some field.
    window : float, optional
        Width of all windows of H; by default it follows the number of sites in them.  F does not depend on it.

    Attributes
    ----------
    flips : ndarray, shape (P, n1, n2), float64
        F of the sites with F <= `edge`; of the others, which are down at `edge`, the field at which each would flip
        as its neighbours are at `edge`.  At the end F of all sites.
    edge, width : float
        The sweep is settled up to `edge`; width of the next window.  With `flips` they are the whole state.
    """

    def __init__(self, slab: Slab, fields, up: np.ndarray | None = None, window: float | None = None):
        self._begin(slab, fields, window)
        avalanches.fill_levels(self._levels, self._fields, self._drawn, self._bonds, slab.lattice.periodic)
        if up is not None:
            self.flips[up] = -np.inf
            self._fill_halo()
            avalanches.start_up(self._levels, slab.lattice.periodic, self._wraps)
        # No spin flips before the first that would do so alone.
        down = self.flips > -np.inf
        self._least = -slab.max(-float(self.flips.min(where=down, initial=np.inf)))
        self._count()

    @classmethod
    def resume(cls, slab: Slab, fields, flips: np.ndarray, edge: float, width: float) -> "FieldSweep":
        """The sweep that was stopped with these `flips`, `edge` and `width`; the slabs may be cut differently.

        `fields` as at the start; `flips`, shape (P, n1, n2), is copied.
        """
        sweep = cls.__new__(cls)
        sweep._begin(slab, fields, None)
        sweep.flips[:] = flips
        sweep.edge, sweep.width = edge, width
        sweep._least = edge
        sweep._fill_halo()
        sweep._count()
        return sweep

    def _begin(self, slab: Slab, fields, window: float | None) -> None:
        lattice = slab.lattice
        self.slab, self.edge, self._fixed = slab, -np.inf, window
        self.width = 0.5 if window is None else window
        stored = not isinstance(fields, Gaussian)
        self._fields = np.ascontiguousarray(fields, np.float64).reshape(-1) if stored else np.empty(0)
        self._drawn = _drawn(slab, Gaussian(0.0, np.uint64(0), 0) if stored else fields)
        plane = np.arange(slab.start, slab.stop)
        self._bonds = np.full(slab.n_planes, 2)
        if not lattice.periodic[0]:
            self._bonds = (plane > 0).astype(np.int64) + (plane < lattice.shape[0] - 1)
        self._shared = slab.n_planes < lattice.shape[0]
        self._wraps = lattice.periodic[0] and not self._shared
        self._levels = np.empty((slab.n_planes + 2, *lattice.shape[1:]))
        # Where no slab is beside this one the halo is never read as a level: no comparison with nan is true.
        self._levels[[0, -1]] = np.inf if self._shared else np.nan
        self._announced = np.zeros(self._levels.size if self._shared else 1, np.uint8)
        self._ordered = np.empty(6)

    @property
    def flips(self) -> np.ndarray:
        return self._levels[1:-1]

    @property
    def done(self) -> bool:
        return self._flipped == self.slab.lattice.n_sites

    @property
    def share(self) -> float:
        """The share of the sites that have flipped, 0 to 1: of the work, near enough."""
        return self._flipped / self.slab.lattice.n_sites

    def advance(self) -> None:
        """Settle one window, (edge, edge + width], on all slabs; nothing where the sweep is done."""
        if self.done:
            return
        # Each window ends at the very number at which the next begins: no value can fall between two of them.
        high = max(self.edge, self._least) + self.width
        flat, plane = self._levels.reshape(-1), self._levels[0].size
        own = flat[plane:-plane]
        sites = self._find(own, high)
        values = flat[sites]
        order = np.argsort(values)
        flipped = self._relax(high, values[order], sites[order])
        flipped = int(self.slab.sum(flipped))
        self._flipped += flipped
        self.edge = high
        if self._fixed is None:
            self._choose_width(own, flipped)

    def _find(self, own: np.ndarray, high: float) -> np.ndarray:
        """The own sites with a level in (edge, high]."""
        sites = np.empty(2 * _WINDOW_LEAST, np.int64)
        while True:
            found = avalanches.find_levels(own, self.edge, high, self._levels[0].size, sites)
            if found + 32 <= sites.size:
                return sites[:found]
            sites = np.empty(found + 32, np.int64)

    def _choose_width(self, own: np.ndarray, flipped: int) -> None:
        """Make the next window wide enough for its share of candidates, going by a sample of the sites."""
        wanted = max(self.slab.lattice.n_sites * _WINDOW_SHARE, _WINDOW_LEAST)
        # Avalanches bring on more flips than there are candidates: many of the last window, many of the next.
        widths = self.width * _STEPS * min(wanted / max(flipped, 1), 1.0)
        # An odd stride, so that the sample is spread over the rows.
        stride = max(own.size // 20_000, 1) | 1
        sample = np.sort(own[::stride])
        counts = np.searchsorted(sample, self.edge + widths, "right") - np.searchsorted(sample, self.edge, "right")
        enough = self.slab.sum(stride * counts) > wanted
        self.width = float(widths[max(int(np.argmax(enough)) if enough.any() else len(_STEPS) - 1, 1) - 1])

    def _relax(self, high: float, values: np.ndarray, sites: np.ndarray) -> int:
        """Settle the window that ends at `high`, whose own candidates are these; return how many own sites flipped."""
        queue = _Queue(values, sites)
        budget = _BUDGET if self._shared else 2**62
        while True:
            status = avalanches.FULL
            while status == avalanches.FULL:
                status = avalanches.settle(
                    self._levels, self._announced, self._fields, self._drawn, self._bonds, self.slab.lattice.periodic,
                    self._wraps, high, queue.candidates, queue.heap, queue.stack, queue.below, queue.above,
                    queue.counters, queue.clock, budget, self._ordered,
                )  # fmt: skip
                if status == avalanches.FULL:
                    queue.grow()
            if not self._shared:
                break
            sent = queue.take_messages()
            for low_halo, message in zip((True, False), self.slab.swap(*sent)):
                queue.make_room(message.size)
                avalanches.receive(self._levels, message, low_halo, *queue.heap, queue.counters)
            if not self.slab.any(status == avalanches.SPENT or sent[0].size + sent[1].size > 0):
                break
        return int(queue.counters[avalanches.FLIPPED])

    def _fill_halo(self) -> None:
        """Fetch what is settled beside the cuts; the rest is announced when it flips."""
        if self._shared:
            self.slab.exchange(self._levels)
            halo = self._levels[[0, -1]]
            self._levels[[0, -1]] = np.where(halo <= self.edge, halo, np.inf)

    def _count(self) -> None:
        self._flipped = int(self.slab.sum(int(np.count_nonzero(self.flips <= self.edge))))


class _Queue:
    """The arrays of `avalanches.settle` for one window.  They grow as avalanches do."""

    def __init__(self, values: np.ndarray, sites: np.ndarray):
        self.candidates = values, sites
        self.heap = np.empty(1024), np.empty(1024, np.int64)
        self.stack = np.empty(1024, np.int64)
        self.below, self.above = np.empty(1024, _MESSAGE), np.empty(1024, _MESSAGE)
        self.counters = np.zeros(6, np.int64)
        self.clock = np.full(2, -np.inf)

    def make_room(self, entries: int) -> None:
        """Room for so many more entries in the heap."""
        size = int(self.counters[avalanches.HEAP])
        if size + entries > len(self.heap[0]):
            self.heap = tuple(_longer(part, size, size + entries) for part in self.heap)

    def grow(self) -> None:
        """Make room in whatever is nearly full."""
        self.make_room(6)
        height = int(self.counters[avalanches.STACK])
        if height + 6 > self.stack.size:
            self.stack = _longer(self.stack, height, height + 6)
        sizes = self.counters[[avalanches.BELOW, avalanches.ABOVE]]
        if sizes.max() >= self.below.size:
            self.below, self.above = (
                _longer(a, n, sizes.max() + 1) for a, n in zip((self.below, self.above), sizes, strict=True)
            )

    def take_messages(self) -> tuple[np.ndarray, np.ndarray]:
        """The flips to be told to the slabs below and above, which are no longer in the queue then."""
        below, above = self.counters[[avalanches.BELOW, avalanches.ABOVE]]
        self.counters[[avalanches.BELOW, avalanches.ABOVE]] = 0
        return self.below[:below], self.above[:above]


def _longer(array: np.ndarray, used: int, least: int) -> np.ndarray:
    """A new array with the first `used` entries of `array` and room for `least`, and as much again."""
    new = np.empty(2 * least, array.dtype)
    new[:used] = array[:used]
    return new


def _drawn(slab: Slab, fields: Gaussian) -> tuple[float, np.uint64, int, int]:
    """What the kernels need to draw a field: R/J, key, item, number of the slab's first site."""
    n_inside = slab.lattice.shape[1] * slab.lattice.shape[2]
    return float(fields.disorder), np.uint64(fields.key), int(fields.item), slab.start * n_inside
