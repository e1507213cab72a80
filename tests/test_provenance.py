"""Files are written whole or not at all."""

import os
import subprocess
import sys

import pytest

from hamscope.errors import UserError
from hamscope.provenance import canonical_json, check_writable, whole_file


def test_a_file_appears_only_when_it_is_whole(tmp_path):
    """An error in the middle leaves the old file as it was, and nothing beside it."""
    path = tmp_path / "a.txt"
    with whole_file(path) as temporary:
        temporary.write_text("old")
    with pytest.raises(ValueError), whole_file(path) as temporary:
        temporary.write_text("half of the n")
        assert path.read_text() == "old"
        raise ValueError
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_a_place_that_cannot_be_written_is_refused(tmp_path):
    """No folder, and a folder without permission (tried as a user that is not root)."""
    with pytest.raises(UserError, match="does not exist"):
        check_writable(tmp_path / "none" / "a.txt")
    if os.geteuid() == 0:
        code = (
            "import os, sys; sys.path.insert(0, 'src'); from hamscope.provenance import check_writable\n"
            "from hamscope.errors import UserError\n"
            "os.setuid(65534)\n"
            "try: check_writable('/usr/a.txt')\n"
            "except UserError as error: print(error)\n"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert "no permission to write" in done.stdout, done.stderr
    else:
        tmp_path.chmod(0o500)
        with pytest.raises(UserError, match="no permission"):
            check_writable(tmp_path / "a.txt")


def test_canonical_json_is_one_text_for_equal_values():
    assert canonical_json({"b": 1, "a": (1, 2.5)}) == canonical_json({"a": [1, 2.5], "b": 1}) == '{"a":[1,2.5],"b":1}'
