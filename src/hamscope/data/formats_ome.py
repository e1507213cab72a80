"""Which pages of a TIFF file belong to one series and channel, from OME-XML or the sizes that ImageJ writes.

    plane = i_1 + n_1 (i_2 + n_2 i_3)    of the indices i_k and sizes n_k of channel, depth and time, the fastest first

References: the OME model, docs.openmicroscopy.org/ome-model/latest/ome-tiff/specification.html.
"""

import math
from collections.abc import Iterable
from pathlib import PurePath
from xml.etree import ElementTree

import numpy as np

from hamscope.data.declared import MAX_FRAMES


def stack_groups(order: str, sizes: dict[str, int], planes: Iterable[int], series: str = "") -> dict[str, list[int]]:
    """The numbers of `planes` by channel, each by time and then depth.

    Parameters
    ----------
    order : str
        C, Z and T, the fastest first.
    sizes : dict
        How many there are of each.
    planes : iterable of int
        Planes that are there, below the product of the sizes.
    series : str
        Name of the series, put before the channel.

    Returns
    -------
    dict
        Name of the source ("", "channel0", "series1/channel0", ...) -> planes.
    """
    rows = []
    for plane in planes:
        index = dict(zip(reversed(order), np.unravel_index(plane, [sizes[letter] for letter in reversed(order)])))
        channel = f"channel{index['C']}" if sizes["C"] > 1 else ""
        rows.append(("/".join(filter(None, (series, channel))), (index["C"], index["T"], index["Z"]), plane))
    groups = {}
    for array, _, plane in sorted(rows, key=lambda row: row[1]):
        groups.setdefault(array, []).append(plane)
    return groups


def ome_groups(xml: str, name: str, n_pages: int) -> dict[str, list[int]]:
    """The pages of the file called `name` by series and channel; {} where the XML says nothing that can be used.

    Planes that the XML puts into other files are left to those files, and planes beyond the `n_pages` of this one were
    never taken.
    """
    if "<!" in xml.replace("<!--", ""):  # entities can unfold to gigabytes, and OME-XML has none
        return {}
    try:
        images = [pixels for pixels in ElementTree.fromstring(xml).iter() if _tag(pixels) == "Pixels"]
        names = {uuid.get("FileName") for pixels in images for uuid in pixels.iter() if _tag(uuid) == "UUID"}
        alone = len(names) <= 1  # a single file that was renamed
        pages = [_pages(pixels, None if alone else name, n_pages) for pixels in images]
        many, groups = sum(map(bool, pages)) > 1, {}
        for number, (pixels, by_plane) in enumerate(zip(images, pages)):
            if by_plane:
                order, sizes = _order(pixels)
                found = stack_groups(order, sizes, by_plane, f"series{number}" if many else "")
                groups |= {array: [by_plane[plane] for plane in planes] for array, planes in found.items()}
        return groups
    except (ElementTree.ParseError, KeyError, ValueError, TypeError):
        return {}


def _tag(element: ElementTree.Element) -> str:
    return element.tag.rpartition("}")[2]


def _order(pixels: ElementTree.Element) -> tuple[str, dict[str, int]]:
    """Order of the dimensions without X and Y, and their sizes; samples of a pixel are not channels of their own."""
    samples = max([int(item.get("SamplesPerPixel", 1)) for item in pixels if _tag(item) == "Channel"], default=1)
    sizes = {letter: int(pixels.attrib["Size" + letter]) for letter in "CZT"}
    sizes["C"] = max(sizes["C"] // samples, 1)
    if min(sizes.values()) < 1 or math.prod(sizes.values()) > MAX_FRAMES:
        raise ValueError("absurd sizes")
    return pixels.attrib["DimensionOrder"][2:], sizes


def _pages(pixels: ElementTree.Element, name: str | None, n_pages: int) -> dict[int, int]:
    """Plane -> page of this file."""
    order, sizes = _order(pixels)
    planes, steps, by_plane = math.prod(sizes.values()), 0, {}
    blocks = [item for item in pixels if _tag(item) == "TiffData"]
    for block in blocks:
        uuids = [item for item in block if _tag(item) == "UUID"]
        if name is not None and uuids and PurePath(uuids[0].get("FileName", "")).name != name:
            continue
        first = [int(block.get("First" + letter, 0)) for letter in reversed(order)]
        plane = int(np.ravel_multi_index(first, [sizes[letter] for letter in reversed(order)]))
        page = int(block.get("IFD", 0))
        count = int(block.get("PlaneCount", 1 if "IFD" in block.attrib else planes))
        steps += max(min(count, planes - plane, n_pages - page), 0)
        if steps > n_pages:
            raise ValueError("a page that is in two planes")
        by_plane |= {plane + step: page + step for step in range(min(count, planes - plane, n_pages - page))}
    return by_plane
