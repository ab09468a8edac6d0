"""Which generators there are: one line a driver."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from harness.errors import ConfigError
from harness.generators.base import Generator
from harness.generators.tcpreplay import TcpreplayGenerator
from harness.generators.trex.astf import TrexAstf
from harness.generators.trex.options import read_options
from harness.generators.trex.push import check_push
from harness.generators.trex.stf import TrexStf
from harness.generators.trex.stl import TrexStl
from harness.model import Corpus, Load
from lab.host import Host
from lab.inventory import GeneratorSpec

__all__ = ["DRIVERS", "check_traffic", "make_generator"]

DRIVERS: dict[str, Callable[[Host, GeneratorSpec], Generator]] = {
    "tcpreplay": TcpreplayGenerator,
    "trex-astf": TrexAstf,
    "trex-stf": TrexStf,
    "trex-stl": TrexStl,
}


def make_generator(host: Host, spec: GeneratorSpec) -> Generator:
    """The generator an inventory names. Raises ConfigError for an unknown driver."""
    try:
        return DRIVERS[spec.driver](host, spec)
    except KeyError:
        known = ", ".join(sorted(DRIVERS))
        raise ConfigError(
            f"generator.driver = {spec.driver!r} is not known; known drivers: {known}"
        ) from None


def check_traffic(spec: GeneratorSpec, corpus: Corpus, loads: Iterable[Load]) -> None:
    """Refuse what a generator cannot make of a corpus, as far as that is known without its host.

    Raises ConfigError, PcapError.
    """
    if spec.driver == "trex-stl" and (options := read_options(spec.options)).push:
        check_push(options, corpus, loads)
