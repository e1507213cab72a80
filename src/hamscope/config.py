"""TOML to validated, frozen models.  Every mistake in a config is named at once, in one line each.

A config says what is computed, never where: ranks, workers and devices are options of the commands.  Each stage
depends on its own section alone, so `section_hash` of that section and of its inputs decides whether to run again.
"""

import difflib
import math
import tomllib
from pathlib import Path
from typing import Annotated, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from hamscope.errors import ConfigError
from hamscope.models import BY_NAME, CLASS_NAMES


def _ordered(bounds: tuple[float, float]) -> tuple[float, float]:
    if bounds[0] > bounds[1]:
        raise ValueError(f"the range runs backwards; write [{bounds[1]}, {bounds[0]}]")
    return bounds


def _as_list_of_ranges(value):
    """Accept one range [a, b] as well as a list of them."""
    return [value] if isinstance(value, list | tuple) and value and not isinstance(value[0], list | tuple) else value


def _even(size: int) -> int:
    if size % 2:
        raise ValueError(f"= {size}: the checkerboard needs even periodic lengths; try {size + 1}")
    return size


def _threshold(value):
    """One readable line instead of one for every type that a threshold could have had."""
    number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if value not in ("otsu", "median") and not number:
        raise ValueError(f"= {value!r}: write otsu, median or a grey value")
    return value


def _drift(value):
    """One readable line instead of one for both types that a drift could have had."""
    numbers = value if isinstance(value, list | tuple) else (value,)
    if any(isinstance(x, bool) or not isinstance(x, int | float) or not math.isfinite(x) for x in numbers) or (
        len(numbers) != 2 and (len(numbers) != 1 or numbers[0] < 0)
    ):
        raise ValueError(f"= {value!r}: write the size of a random step, or [rows, columns] a frame, in pixels")
    return value


Finite = Annotated[float, Field(allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Probability = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1)]
EvenSize = Annotated[int, Field(ge=4), AfterValidator(_even)]
PositiveRange = Annotated[tuple[Positive, Positive], AfterValidator(_ordered)]
NotNegativeRange = Annotated[tuple[NotNegative, NotNegative], AfterValidator(_ordered)]
ProbabilityRange = Annotated[tuple[Probability, Probability], AfterValidator(_ordered)]
# How fast the field of a random-field model goes at T > 0 unless the config says so: 0.001 J a sweep.
_SWEEP_RATE = {"field_step": 0.01, "sweeps_per_step": 10}
# Below it a film that drifts by parts of a pixel would ring at the walls of its domains.
_LEAST_BLUR = 0.7


class Section(BaseModel):
    """A table of the config: frozen, no unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)


class Lattices(Section):
    """How many independent `lattices` a class has, and how their parameters lie in the range.

    Without `grid` the parameters are drawn continuously, one from each of as many equal strata as there are lattices.
    With it they are `grid` values, equally spaced with both ends, and lattice k takes value k % grid: several lattices
    of equal parameter give an observable its error bar.
    """

    lattices: Count
    grid: Count | None = None

    @model_validator(mode="after")
    def _grid_is_filled(self):
        if self.grid is not None and self.grid > self.lattices:
            raise ValueError(f"grid = {self.grid}: there are {self.lattices} lattices; write a grid of at most that")
        return self


class CleanIsing(Lattices):
    """Equilibrium sampling of the clean Ising model; S2 of the paper.

    `lattices` are spread over the range of `temperature` (T/J), in the uniform `field` H/J; each is thermalised once
    and then measured `measurements` times, with `sweeps_between` Metropolis sweeps and `wolff_between` Wolff updates
    in between.
    """

    temperature: PositiveRange
    field: Finite = 0.0
    measurements: Count = 1
    thermalization_sweeps: Count
    thermalization_wolff: Annotated[int, Field(ge=0)]
    sweeps_between: Count = 10
    wolff_between: Annotated[int, Field(ge=0)] = 10


class RandomField(Lattices):
    """Field sweeps of the random-field Ising model, one per lattice.

    `lattices` are spread over the range of `disorder` (R/J); `directions` says which way their fields go, with "both"
    every second one downwards.  `snapshots` target magnetizations, uniform in |m| <= `max_magnetization`, give the
    states that are kept.

    At `temperature` (T/J) 0 a sweep is adiabatic.  Above, H goes in steps of `field_step` (J, 0.01) with
    `sweeps_per_step` (10) sweeps of the heat bath at each: from -`max_field` up, or from +`max_field` down, until the
    last target is reached, at most to the other end; targets not reached by then have no state.  By default
    `max_field` (J) is the number of neighbours plus twice the largest disorder.
    """

    disorder: NotNegativeRange
    snapshots: Count
    directions: Literal["both", "up", "down"] = "both"
    max_magnetization: Annotated[float, Field(gt=0, lt=1)] = 0.6
    temperature: NotNegative = 0.0
    field_step: Annotated[Positive | None, Field(validate_default=True)] = None
    sweeps_per_step: Annotated[Count | None, Field(validate_default=True)] = None
    max_field: Positive | None = None

    @field_validator("field_step", "sweeps_per_step", "max_field")
    @classmethod
    def _needs_a_temperature(cls, value, info: ValidationInfo):
        """Only a sweep at T > 0 has a rate; there the defaults are filled in, so that a file tells them."""
        if "temperature" not in info.data:
            return value
        if info.data["temperature"] > 0:
            return _SWEEP_RATE.get(info.field_name) if value is None else value
        if value is not None:
            raise ValueError(f"= {value}: the sweep at temperature = 0 is adiabatic; write a temperature above 0")
        return value

    @model_validator(mode="after")
    def _has_several_steps(self):
        if self.temperature and self.max_field is not None and self.field_step > self.max_field:
            raise ValueError(f"field_step = {self.field_step}: max_field is {self.max_field}; write a smaller step")
        return self


class Percolation(Lattices):
    """Uncorrelated sites, up with probability p; `lattices` take the ranges of `probability` in turn.

    A `grid` is laid over each of the ranges.
    """

    probability: Annotated[tuple[ProbabilityRange, ...], BeforeValidator(_as_list_of_ranges), Field(min_length=1)]


class Simulate(Section):
    """What `hamscope simulate` draws: which classes, how many lattices, images of `image_size` sites a side.

    The z axis of three-dimensional lattices is open, as S2 has it, or periodic (`boundary`), as published energies
    and cumulants are.  Their other axes and those of two-dimensional lattices are periodic.
    """

    seed: int
    image_size: EvenSize = 100
    boundary: Literal["open", "periodic"] = "open"
    c2d: CleanIsing | None = Field(None, alias="C-2D")
    c3d: CleanIsing | None = Field(None, alias="C-3D")
    rf2d: RandomField | None = Field(None, alias="RF-2D")
    rf3d: RandomField | None = Field(None, alias="RF-3D")
    p2d: Percolation | None = Field(None, alias="P-2D")
    p3d: Percolation | None = Field(None, alias="P-3D")
    pstar: Percolation | None = Field(None, alias="P*")

    @model_validator(mode="after")
    def _check(self):
        if not self.classes:
            raise ValueError(f"no model class is given; add one of the tables {', '.join(CLASS_NAMES)}")
        return self

    @property
    def classes(self) -> dict[str, CleanIsing | RandomField | Percolation]:
        """The classes asked for, by name, in the order of Table I."""
        given = {field.alias: getattr(self, name) for name, field in type(self).model_fields.items() if field.alias}
        return {name: given[name] for name in CLASS_NAMES if given[name] is not None}


class Instrument(Section):
    """The microscopes that training images are seen through; every image draws one anew in every epoch.

    The share `sharp` of the images is left as it is.  The others get a point-spread function of a width uniform in
    `psf_px` (standard deviation in pixels; the share `airy` of them Airy discs, else Gaussians), the share `noisy` of
    them grey noise uniform in `noise` (of the contrast), and two levels again by the fixed middle between dark and
    bright or, the share `adaptive`, by their own median or Otsu's threshold in turn.  The share `rescaled` has pixels
    of other than one lattice site, of a side in `pixel_sites` (log-uniform).  A network that asks for it is told the
    width of the share `told`.
    """

    sharp: Probability = 0.15
    psf_px: NotNegativeRange = (0.0, 3.0)
    airy: Probability = 0.5
    noisy: Probability = 0.5
    noise: NotNegativeRange = (0.0, 0.2)
    adaptive: Probability = 0.3
    rescaled: Probability = 0.0
    pixel_sites: PositiveRange = (0.7, 1.5)
    told: Probability = 0.5


class Train(Section):
    """The network and how it is trained.

    `network` "paper" is that of III B, or one with more `filters` (a convolution each) in its manner; "invariant" gives
    the same logits for all 8 images of a window under D4 (see `hamscope.learn.network`).  `symmetry` is how the
    paper's network learns the symmetries of its images: "reduced" to one form of 16, or "augmented", trained on in a
    random one of the 16 in every epoch.  `instrument` says what microscopes the images are seen through; without it
    they are sharp.

    `validation_fraction` is a share of lattice samples.  With the `schedule` "linear" the learning rate falls from
    epoch to epoch towards zero, which ends the swinging of the last few; the paper states none ("constant").
    """

    seed: int
    epochs: Count
    batch_size: Count = 64
    learning_rate: Positive = 1e-3
    schedule: Literal["constant", "linear"] = "constant"
    network: Literal["paper", "invariant"] = "paper"
    padding: Literal["valid", "same"] = "valid"
    symmetry: Literal["reduced", "augmented"] = "reduced"
    filters: Annotated[tuple[Count, ...], Field(min_length=1, max_length=6)] = (32, 64)
    hidden: Count = 256
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.5
    validation_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.2
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    instrument: Instrument | None = None

    @model_validator(mode="after")
    def _fits_the_network(self):
        if self.network == "invariant" and (self.padding != "valid" or self.symmetry != "reduced"):
            raise ValueError("network = 'invariant': takes no padding and no symmetry; leave both out")
        return self


class Classify(Section):
    """How frames become two-level images, which windows of them are classified, and when a window is confident.

    `confidence` is "default", the score that the bundle was found to be best with, or one of
    `hamscope.learn.trust.SCORES`.  `psf_px` is the standard deviation of the point-spread function of the microscope
    in pixels, None where it is not known.
    """

    stride: Count = 1
    threshold: Annotated[Literal["otsu", "median"] | float, BeforeValidator(_threshold)] = "otsu"
    up: Literal["bright", "dark"] = "bright"
    confidence: Literal["default", "cloud", "mahalanobis", "energy", "nearest", "componentwise", "euclidean"] = (
        "default"
    )
    psf_px: NotNegative | None = None


class Film(Section):
    """A synthetic experiment of known truth: grey frames of one model, seen through an instrument.

    `parameter` is R/J (one number) for the random-field models, which are swept through their field at T = 0; a range
    of T/J (at H = 0) or p for the others.  `kelvin` is the sample temperature written beside the frames: its ends are
    the ends of that range, or of `field` (H/J) for the random-field models, and what lies between is linear.

    A `sweep` "up" heats through `frames` frames.  "loop" heats through the first half of them and cools through the
    second, saturated in between; "minor loop" turns back from the state of the last heated frame.  `frames_at` the
    "transition" are at equal steps of H from m = -+0.85 to +-0.85 of each branch, at the "range" from end to end of
    `field`.  Without `field` the transition is what `kelvin` spans.

    `blur_px` is the width of the point-spread function `psf` (standard deviation of the Gaussian; of the one as wide
    at half maximum for "airy") and `noise` the standard deviation of the grey noise, in units of the contrast between
    the two levels.  `drift` moves the sample: one number is the standard deviation of a random step, two are the rows
    and columns of a constant one, in pixels a frame.  `uneven_light` a makes the illumination run from 1 - a to 1 + a.
    `electrodes` are bright rectangles on the sample: first row, end row, first column, end column.
    """

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]+$")]
    model: Literal[CLASS_NAMES]
    parameter: Positive | PositiveRange
    size: EvenSize
    frames: Count
    seed: int
    kelvin: PositiveRange = (338.0, 346.0)
    sweep: Literal["up", "loop", "minor loop"] = "up"
    field: Annotated[tuple[Finite, Finite], AfterValidator(_ordered)] | None = None
    frames_at: Literal["transition", "range"] = "transition"
    noise: NotNegative = 0.0
    psf: Literal["gaussian", "airy"] = "gaussian"
    blur_px: NotNegative = 0.0
    drift: Annotated[NotNegative | tuple[Finite, Finite], BeforeValidator(_drift)] = 0.0
    uneven_light: Annotated[float, Field(ge=0, lt=1)] = 0.0
    electrodes: tuple[tuple[int, int, int, int], ...] = ()

    @field_validator("parameter", mode="before")
    @classmethod
    def _fits_the_model(cls, value, info: ValidationInfo):
        """One readable line instead of one for every type that the parameter could have had."""
        model = info.data.get("model", "C-2D")
        one, family = BY_NAME[model].parameter, BY_NAME[model].family
        numbers = value if isinstance(value, list | tuple) else (value,)
        if any(isinstance(x, bool) or not isinstance(x, int | float) or not 0 < x < math.inf for x in numbers):
            raise ValueError(f"= {value!r}: {one} of a film is positive; write a number or a range [first, last]")
        if family == "percolation" and max(numbers) > 1:
            raise ValueError(f"= {value}: a probability is at most 1")
        if family == "random-field" and len(numbers) != 1:
            raise ValueError(f"= {value}: a film of {model} is swept through its field at one {one}; write one number")
        return value

    @model_validator(mode="after")
    def _can_be_filmed(self):
        swept = BY_NAME[self.model].family == "random-field"
        if self.sweep != "up" and self.frames % 2:
            raise ValueError(f"frames = {self.frames}: half of a {self.sweep} is heated; write {self.frames + 1}")
        if swept and self.field is None and (self.sweep, self.frames_at) != ("up", "transition"):
            raise ValueError(f"field is missing; write the H/J at {self.kelvin[0]:g} K and at {self.kelvin[1]:g} K")
        if self.field is not None and self.field[0] == self.field[1]:
            raise ValueError(f"field = {list(self.field)}: has to span a range; write the H/J at both ends of kelvin")
        if swept and self.sweep == "minor loop" and self.frames_at != "range":
            raise ValueError("frames_at = 'transition': a minor loop turns back at the end of field; write 'range'")
        if not swept and (self.field is not None or self.sweep == "minor loop" or self.frames_at != "transition"):
            raise ValueError(f"{self.model} has no memory; write sweep = 'loop' or 'up', and no field or frames_at")
        if self.drift not in (0, (0, 0)) and self.blur_px < _LEAST_BLUR:
            raise ValueError(f"blur_px = {self.blur_px:g}: a sharp film cannot drift; write {_LEAST_BLUR} or more")
        for top, end, left, right in self.electrodes:
            if not (0 <= top < end <= self.size and 0 <= left < right <= self.size):
                raise ValueError(
                    f"electrodes: {[top, end, left, right]} is no rectangle within {self.size} x {self.size} pixels; "
                    "write [first row, end row, first column, end column]"
                )
        return self

    @property
    def parameter_range(self) -> tuple[float, float]:
        """The parameter at both ends of `kelvin`."""
        return self.parameter if isinstance(self.parameter, tuple) else (self.parameter, self.parameter)


class Config(Section):
    """A whole config.  `name` marks the output folder of `hamscope run`, so that two configs cannot mix there."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]+$")]
    simulate: Simulate
    train: Train | None = None
    classify: Classify = Classify()
    film: tuple[Film, ...] = ()

    @model_validator(mode="after")
    def _check(self):
        names = [film.name for film in self.film]
        double = sorted({name for name in names if names.count(name) > 1})
        if double:
            raise ValueError(f"film: the name {', '.join(double)} is used twice; names become file names")
        return self


def load_config(path: str | Path, changes: dict[str, dict[str, str]] | None = None) -> Config:
    """Read and check a TOML config.

    Parameters
    ----------
    changes : dict, optional
        Section -> key -> value as TOML (a text needs no quotes); "none" takes the key away.

    Raises
    ------
    ConfigError
        One line a mistake, all of them at once: where, the value, what to write instead.
    """
    path = Path(path)
    try:
        data = tomllib.loads(path.read_text())
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror}); give the path of a TOML config") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: is not text; give the path of a TOML config") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: is not TOML: {error}") from None
    for section, keys in (changes or {}).items():
        for key, text in keys.items():
            table = data.setdefault(section, {})
            if text == "none":
                table.pop(key, None)
            else:
                table[key] = _toml_value(text)
    return parse_config(data, str(path))


def _toml_value(text: str):
    """A value as TOML has it, or the text itself."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def parse_config(data: dict, origin: str = "config") -> Config:
    """Check a config given as a dict; `origin` names it in the messages of ConfigError."""
    try:
        return Config.model_validate(data)
    except ValidationError as error:
        lines = [f"{origin}: {_explain(mistake)}" for mistake in error.errors()]
        raise ConfigError("\n".join(dict.fromkeys(lines))) from None


def _explain(mistake: dict) -> str:
    """One line for one mistake that pydantic found."""
    keys = [k for k in mistake["loc"] if isinstance(k, int) or not k.startswith(("function-", "tuple[", "literal["))]
    where = ".".join(str(k) for k in keys) or "config"
    if mistake["type"] == "extra_forbidden":
        known = _known_keys(keys[:-1])
        near = difflib.get_close_matches(str(keys[-1]), known, 1)
        hint = f"did you mean {near[0]}?" if near else f"known here: {', '.join(known)}"
        return f"{where}: unknown key; {hint}"
    if mistake["type"] == "missing":
        return f"{where}: is missing; add it"
    message = mistake["msg"].removeprefix("Value error, ")
    if message.startswith("="):
        return f"{where} {message}"
    return f"{where}: {message}" if mistake["type"] == "value_error" else f"{where} = {mistake['input']!r}: {message}"


def _known_keys(path: list) -> list[str]:
    """The keys that the table at `path` may have."""
    model = Config
    for key in path:
        if isinstance(key, int):
            continue
        fields = {field.alias or name: field for name, field in model.model_fields.items()}
        if key not in fields:
            break
        annotation = fields[key].annotation
        options = [annotation, *getattr(annotation, "__args__", ())]
        model = next((m for m in options if isinstance(m, type) and issubclass(m, Section)), model)
    return [field.alias or name for name, field in model.model_fields.items()]
