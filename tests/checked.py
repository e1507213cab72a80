"""Files for the tests of `hamscope check`: a small real slices file, and mutated copies of its bytes."""

from pathlib import Path

import h5py
import numpy as np
from engines import simulated

from hamscope import child
from hamscope.data import slices

CONFIG = """
name = "small"
[simulate]
seed = 5
image_size = 16
[simulate.C-2D]
temperature = [2.25, 2.64]
lattices = 4
measurements = 2
thermalization_sweeps = 20
thermalization_wolff = 2
[simulate.RF-2D]
disorder = [1.00, 1.19]
lattices = 4
snapshots = 3
[simulate.P-3D]
probability = [0.29, 0.33]
lattices = 2
[simulate."P*"]
probability = [[0.02, 0.20], [0.80, 0.98]]
lattices = 4
"""


def simulate_small(folder: Path) -> Path:
    """A slices file of four classes and a few dozen images, made by the command."""
    return simulated(folder, CONFIG)[1]


def rehash(path: Path) -> None:
    """Give a changed file the content hash that it has now, so that nothing but the change is wrong."""
    with h5py.File(path, "a") as file:
        file.attrs["content_sha256"] = slices.content_hash(
            [slices.image_digests(file["images"][:])], file, file["avalanches"]
        )


def targets(path: Path) -> dict[str, np.ndarray]:
    """Where the parts of an HDF5 file begin, in bytes: object headers, B-trees, heaps, chunks and columns."""
    data = path.read_bytes()
    places = {"superblock": [0]}
    for name, signature in (("tree", b"TREE"), ("heap", b"HEAP"), ("node", b"SNOD"), ("texts", b"GCOL")):
        places[name] = [k for k in range(len(data)) if data.startswith(signature, k)]
    with h5py.File(path) as file:
        places["headers"] = [h5py.h5o.get_info(item.id).addr for item in (file, *file.values())]
        images = file["images"].id
        places["chunks"] = [images.get_chunk_info(k).byte_offset for k in range(images.get_num_chunks())]
        places["columns"] = [file[name].id.get_offset() for name in slices.COLUMNS]
    return {name: np.array(found) for name, found in places.items() if found}


def mutate(data: bytes, places: dict[str, np.ndarray], seed: int) -> bytes:
    """One mutated copy: kind and place by the seed, half of them anywhere and half within 300 bytes of a part.

    It always differs: what would change nothing, as zeros over zeros, is drawn again.
    """
    random = np.random.default_rng(seed)
    while (mutant := _mutant(data, places, seed % 8, random)) == data:
        pass
    return mutant


def _mutant(data: bytes, places: dict[str, np.ndarray], kind: int, random: np.random.Generator) -> bytes:
    mutant = bytearray(data)

    def place() -> int:
        if random.random() < 0.5:
            return int(random.integers(len(data)))
        part = list(places)[random.integers(len(places))]
        return min(int(random.choice(places[part]) + random.integers(300)), len(data) - 1)

    length = int(2 ** random.uniform(0, 10))
    if kind in (0, 1):  # flipped bits, one to eight
        for _ in range(int(random.integers(1, 9))):
            mutant[place()] ^= 1 << int(random.integers(8))
    elif kind == 2:  # random bytes
        at = place()
        mutant[at : at + 4] = random.bytes(len(mutant[at : at + 4]))
    elif kind == 3:  # zeros
        at = place()
        mutant[at : at + length] = bytes(len(mutant[at : at + length]))
    elif kind == 4:  # the largest of numbers, where a size or an address may be
        at = place() & ~7
        mutant[at : at + 8] = b"\xff" * len(mutant[at : at + 8])
    elif kind == 5:  # cut off
        del mutant[place() :]
    elif kind == 6:  # a piece copied over another, or in between
        source, at = place(), place()
        piece = mutant[source : source + length]
        mutant[at : at + (len(piece) if random.random() < 0.5 else 0)] = piece
    else:  # two blocks swapped
        first, second = sorted((place() & ~15, place() & ~15))
        length = min(length, second - first, len(mutant) - second)
        piece = mutant[first : first + length]
        mutant[first : first + length] = mutant[second : second + length]
        mutant[second : second + length] = piece
    return bytes(mutant)


def refused(path, reason: str, memory: int = child.MEMORY, check_one=None) -> child.Outcome:
    """The child refuses the file in one clear line that names it and the reason; it ends by itself.

    The child is forked from the test, as the worker of the command forks it.
    """
    outcome = (check_one or child._outcome)(str(path), 20, memory)
    assert (outcome.verdict, outcome.end) == ("bad", "done"), outcome
    assert reason in outcome.lines[0] and str(path) in outcome.lines[0] and len(outcome.lines) == 1, outcome
    return outcome


def fletcher32(data: bytes) -> int:
    """The checksum of HDF5: two sums of 16-bit big-endian words modulo 65535."""
    words = np.frombuffer(data + bytes(len(data) % 2), ">u2").astype(object)
    return int(words.sum() % 65535) | int((words * np.arange(len(words), 0, -1)).sum() % 65535) << 16


def deep(file, name, old):
    group = file.create_group(name)
    for _ in range(10_000):
        group = group.create_group("g")
