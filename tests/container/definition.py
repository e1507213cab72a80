"""An Apptainer definition file, read as Apptainer reads it: a header of keys, then sections that begin with %."""

import re
import sys
from pathlib import Path
from typing import NamedTuple

SCRIPTS = ("post", "environment", "runscript", "test")
_KNOWN = (*SCRIPTS, "setup", "pre", "files", "labels", "help", "arguments", "startscript")


class Definition(NamedTuple):
    """`header` by its keys in lower case; `sections` by their names, the text of each without its indentation."""

    header: dict[str, str]
    sections: dict[str, str]


def read_definition(path: str | Path) -> Definition:
    """Read a definition file.

    Raises
    ------
    ValueError
        A section that Apptainer does not know, one that is there twice, or a line of the header that is no key.
    """
    header, sections, name = {}, {}, None
    for number, line in enumerate(Path(path).read_text().splitlines(), 1):
        begun = re.match(r"%(\w+)\s*(.*)", line)
        if begun:
            name = begun[1].lower()
            if name not in _KNOWN or name in sections:
                raise ValueError(f"{path}:{number}: %{begun[1]} is unknown or there twice")
            sections[name] = []
        elif name is not None:
            sections[name].append(line.removeprefix("    "))
        elif line.strip() and not line.startswith("#"):
            key, colon, value = line.partition(":")
            if not colon:
                raise ValueError(f"{path}:{number}: {line!r} is no key of the header")
            header[key.strip().lower()] = value.strip()
    return Definition(header, {name: "\n".join(lines).strip("\n") + "\n" for name, lines in sections.items()})


def pairs(section: str) -> list[tuple[str, str]]:
    """The two words of every line of %files, or the key and the rest of every line of %labels."""
    return [tuple(line.split(None, 1)) for line in section.splitlines() if line.strip()]


if __name__ == "__main__":  # definition.py FILE SECTION: print the section, for chroot.sh
    print(read_definition(sys.argv[1]).sections[sys.argv[2]], end="")
