"""Configs: every mistake is named at once, in one line with the value, the reason and the way out."""

import tomllib
from pathlib import Path

import pytest

from hamscope.config import load_config, parse_config
from hamscope.errors import ConfigError
from hamscope.provenance import section_hash, section_json

CONFIGS = Path(__file__).parent.parent / "configs"


@pytest.fixture
def tiny() -> dict:
    return tomllib.loads((CONFIGS / "tiny.toml").read_text())


@pytest.mark.parametrize("name", ["tiny", "laptop", "paper"])
def test_shipped_configs_are_valid_and_named_after_their_file(name):
    config = load_config(CONFIGS / f"{name}.toml")
    assert config.name == name
    assert len(config.simulate.classes) == 7


def test_paper_config_has_the_numbers_of_table_1_and_s2():
    """Table I and S2 of doi:10.48550/arXiv.2211.01490, number by number."""
    simulate = load_config(CONFIGS / "paper.toml").simulate
    assert simulate.image_size == 100
    assert simulate.c2d.temperature == (2.25, 2.64)
    assert simulate.c3d.temperature == (4.45, 4.65)
    assert simulate.rf2d.disorder == (1.00, 1.19)
    assert simulate.rf3d.disorder == (2.25, 2.29)
    assert simulate.p2d.probability == ((0.57, 0.61),)
    assert simulate.p3d.probability == ((0.29, 0.33),)
    assert simulate.pstar.probability == ((0.02, 0.2), (0.48, 0.52), (0.8, 0.98))
    for clean in (simulate.c2d, simulate.c3d):
        assert (clean.thermalization_sweeps, clean.thermalization_wolff) == (100_000, 10_000)
        assert (clean.sweeps_between, clean.wolff_between) == (10, 10)
    assert simulate.c2d.lattices * simulate.c2d.measurements == 8000
    assert 13 * simulate.c3d.lattices * simulate.c3d.measurements == 13 * 616
    assert simulate.p2d.lattices == 8000
    assert simulate.p3d.lattices == 616
    assert simulate.pstar.lattices == 16000


def test_every_mistake_is_named_at_once(tiny):
    """Eleven mistakes in four tables give eleven lines, each with its place; none of the good values is named."""
    tiny["simulate"]["image_size"] = 33
    tiny["simulate"]["C-2D"]["temprature"] = [1, 2]
    tiny["simulate"]["C-2D"]["temperature"] = [-1, 2]
    tiny["simulate"]["P-2D"]["probability"] = [0.5, 1.2]
    tiny["simulate"]["RF-3D"]["disorder"] = [2.3, 2.25]
    tiny["simulate"]["C-4D"] = {}
    del tiny["simulate"]["RF-2D"]["disorder"]
    tiny["train"]["epoch"] = 3
    tiny["classify"]["threshold"] = "otsi"
    tiny["film"][0]["parameter"] = -1
    tiny["trian"] = {}
    with pytest.raises(ConfigError) as caught:
        parse_config(tiny, "my.toml")
    lines = str(caught.value).splitlines()
    expected = {
        "simulate.image_size = 33": "try 34",
        "simulate.C-2D.temprature": "did you mean temperature?",
        "simulate.C-2D.temperature.0 = -1": "greater than 0",
        "simulate.P-2D.probability.0.1 = 1.2": "less than or equal to 1",
        "simulate.RF-3D.disorder": "write [2.25, 2.3]",
        "simulate.C-4D": "did you mean C-3D?",
        "simulate.RF-2D.disorder": "is missing",
        "train.epoch": "did you mean epochs?",
        "classify.threshold = 'otsi'": "otsu, median or a grey value",
        "film.0.parameter = -1": "positive",
        "trian": "did you mean train?",
    }
    assert len(lines) == len(expected)
    for where, hint in expected.items():
        assert any(line.startswith(f"my.toml: {where}") and hint in line for line in lines), (where, lines)


@pytest.mark.parametrize(
    "model, parameter, reason",
    [("RF-2D", [1.0, 1.2], "write one number"), ("P-2D", [0.5, 1.5], "at most 1"), ("C-2D", "hot", "positive")],
)
def test_a_film_that_its_model_cannot_draw_is_refused(tiny, model, parameter, reason):
    tiny["film"][0] |= {"model": model, "parameter": parameter}
    with pytest.raises(ConfigError, match=reason):
        parse_config(tiny)


def test_two_films_of_one_name_are_refused(tiny):
    tiny["film"] *= 2
    with pytest.raises(ConfigError, match="used twice"):
        parse_config(tiny)


@pytest.mark.parametrize("text, reason", [("name = ", "is not TOML"), (b"\xff\xfe\x00", "is not text")])
def test_a_file_that_is_no_config_is_refused(tmp_path, text, reason):
    path = tmp_path / "a.toml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ConfigError, match=reason):
        load_config(path)
    with pytest.raises(ConfigError, match="cannot be read"):
        load_config(tmp_path / "none.toml")


def test_a_stage_depends_on_its_own_section_only(tiny):
    """Another number of epochs changes the hash of [train] and leaves that of [simulate] as it was."""
    before = parse_config(tiny)
    tiny["train"]["epochs"] += 1
    after = parse_config(tiny)
    assert section_json(before.simulate) == section_json(after.simulate)
    assert section_hash(before.train, "x") != section_hash(after.train, "x")
    assert section_hash(before.train, "x") != section_hash(before.train, "y")


def test_a_sweep_rate_needs_a_temperature(tiny):
    """field_step, sweeps_per_step and max_field are refused at T = 0, a line each; above it defaults are filled in."""
    table = tiny["simulate"]["RF-2D"]
    table |= {"field_step": 0.02, "sweeps_per_step": 5, "max_field": 3.0}
    with pytest.raises(ConfigError) as caught:
        parse_config(tiny)
    lines = str(caught.value).splitlines()
    assert [line.split(" = ")[0] for line in lines] == [
        f"config: simulate.RF-2D.{key}" for key in ("field_step", "sweeps_per_step", "max_field")
    ]
    assert all("write a temperature above 0" in line for line in lines)
    table["temperature"] = 0.3
    given = parse_config(tiny).simulate.rf2d
    assert (given.temperature, given.field_step, given.sweeps_per_step, given.max_field) == (0.3, 0.02, 5, 3.0)
    for key in ("field_step", "sweeps_per_step", "max_field"):
        del table[key]
    filled = parse_config(tiny).simulate.rf2d
    assert (filled.field_step, filled.sweeps_per_step, filled.max_field) == (0.01, 10, None)
    cold = parse_config(tiny).simulate.rf3d
    assert (cold.temperature, cold.field_step, cold.sweeps_per_step, cold.max_field) == (0.0, None, None, None)


@pytest.mark.parametrize(
    "keys, reason",
    [
        ({"temperature": -0.1}, "greater than or equal to 0"),
        ({"temperature": 0.3, "field_step": 0.0}, "greater than 0"),
        ({"temperature": 0.3, "sweeps_per_step": 0}, "greater than or equal to 1"),
        ({"temperature": 0.3, "field_step": 2.0, "max_field": 1.0}, "write a smaller step"),
    ],
)
def test_a_drive_that_cannot_be_is_refused(tiny, keys, reason):
    tiny["simulate"]["RF-2D"] |= keys
    with pytest.raises(ConfigError, match=reason) as caught:
        parse_config(tiny)
    assert "\n" not in str(caught.value)


def test_classify_knows_the_scores_of_the_bundle():
    """`confidence` takes "default" and every score that a bundle has a limit for."""
    from typing import get_args

    from hamscope.config import Classify
    from hamscope.learn.trust import SCORES

    assert set(get_args(Classify.model_fields["confidence"].annotation)) == {"default", *SCORES}
