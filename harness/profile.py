"""Load profiles: what a sweep asks for, read from TOML and checked before anything is touched."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from harness.errors import ConfigError
from harness.generators.axes import AXES, axes_of
from harness.generators.trex.traffic import StlTraffic
from harness.model import Axis, Load
from lab.inventory import GeneratorSpec
from lab.tomlfile import first_problem, read_toml

__all__ = ["AutoLoads", "CorpusSpec", "LoadSpec", "Profile", "ReferenceSpec", "load_profile"]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class AutoLoads(_Strict):
    """How loads are chosen from a short calibration: multiples of the measured capacity.

    The capacity is the rate at which the sensor analysed packets while it was overloaded during
    the calibration trial. `probe` is the packet rate asked there. `refine` more loads are put, one
    after the other, where the drop rate jumps most.
    """

    points: int = Field(default=7, ge=2, le=50)
    lowest: float = Field(default=0.25, gt=0)
    highest: float = Field(default=2.0, gt=0)
    probe: float = Field(default=300_000, gt=0)
    seconds: float = Field(default=3.0, gt=0)
    refine: int = Field(default=2, ge=0, le=20)

    @model_validator(mode="after")
    def _ordered(self) -> AutoLoads:
        if self.lowest >= self.highest:
            raise ValueError("lowest must be below highest")
        return self


class LoadSpec(_Strict):
    """The axis and its values: a list, or "auto"."""

    axis: Axis = "pps"
    values: tuple[float, ...] | Literal["auto"] = "auto"
    duration: float = Field(default=8.0, gt=0, le=86_400)
    repeats: int = Field(default=1, ge=1, le=100)
    auto: AutoLoads = AutoLoads()

    @model_validator(mode="after")
    def _positive(self) -> LoadSpec:
        if self.values != "auto" and (not self.values or min(self.values) <= 0):
            raise ValueError("values must be positive loads, at least one")
        return self

    @property
    def listed(self) -> tuple[Load, ...]:
        """The loads, as far as they are known: none where they are chosen by a calibration."""
        values = () if self.values == "auto" else self.values
        return tuple(Load(self.axis, value, self.duration) for value in values)


class CorpusSpec(_Strict):
    """Which corpus, and how its iterations are made."""

    path: Path | None = None
    max_gap: float | None = Field(default=None, gt=0)
    key: str | None = None  # default: drawn at random and recorded in run.json


class ReferenceSpec(_Strict):
    """Where it is known from what the sensor raises on the corpus when nothing is lost.

    "offline": Suricata reads the corpus from the file. "live": the sensor itself is sent
    `iterations` of it at `pps` packets/s, far below its capacity, and what it raises on each counts
    as due. "none": detection is not scored. "auto" takes the first that the sensor can do.
    """

    source: Literal["auto", "offline", "live", "none"] = "auto"
    pps: float = Field(default=1000.0, gt=0)
    iterations: int = Field(default=3, ge=2, le=100)


class Profile(_Strict):
    """One experiment: a load axis, its values, a corpus, and how strict to be.

    `generator_options` are what is sent, of a generator that has a choice (trex-stl: frames, push,
    push_gaps); they go before the inventory's `[generator.options]`.
    """

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    description: str = ""
    proves: str = ""
    generator: str | None = None  # default: the inventory's driver
    generator_options: dict[str, Any] = Field(default_factory=dict)
    load: LoadSpec = LoadSpec()
    corpus: CorpusSpec = CorpusSpec()
    reference: ReferenceSpec = ReferenceSpec()
    settle_timeout: float = Field(default=20.0, gt=0)
    strict: bool = False

    @model_validator(mode="after")
    def _settable(self) -> Profile:
        if self.generator_options:
            _check_options(self.generator, self.generator_options)
        if self.generator is None:
            return self  # the inventory's is asked when it is known
        if self.generator not in AXES:
            raise ValueError(
                f"generator = {self.generator!r} is not known; known are {', '.join(sorted(AXES))}"
            )
        able = axes_of(self.generator, self.generator_options)
        if self.load.axis not in able:
            raise ValueError(
                f"generator {self.generator} cannot set the axis {self.load.axis!r}; it can set "
                f"{', '.join(able)}"
            )
        return self

    def generator_in(self, spec: GeneratorSpec) -> GeneratorSpec:
        """The inventory's generator as this profile wants it: driver, and what it sends."""
        options = {**spec.options, **self.generator_options}
        return spec.model_copy(update={"driver": self.generator or spec.driver, "options": options})


def _check_options(generator: str | None, options: dict[str, Any]) -> None:
    """Raises ValueError."""
    if generator != "trex-stl":
        raise ValueError(
            f"generator_options: {generator or 'a profile without generator'} has none to choose "
            'from in a profile; generator = "trex-stl" has'
        )
    try:
        StlTraffic.model_validate(options)
    except ValidationError as error:
        raise ValueError(f"generator_options.{first_problem(error)}") from None


def load_profile(path: Path) -> Profile:
    """Read and check a profile; a relative corpus path is relative to the file.

    Raises ConfigError naming file and key.
    """
    try:
        data = read_toml(path)
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such profile; ready ones are in profiles/") from None
    except ValueError as error:
        raise ConfigError(f"{path}: {error}") from None
    corpus = data.get("corpus")
    if isinstance(corpus, dict) and isinstance(corpus.get("path"), str):
        corpus["path"] = str(path.resolve().parent / Path(corpus["path"]).expanduser())
    try:
        return Profile.model_validate(data)
    except ValidationError as error:
        raise ConfigError(f"{path}: {first_problem(error)}") from None
