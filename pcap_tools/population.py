"""How many hosts there are: a bound on each class's addresses, which then recur.

Fresh addresses without end make every connection a new host, which fills a sensor's host tables and
never reaches a per-source threshold. With N hosts in a class of c addresses, the addresses of
iteration i are those of iteration i mod ⌊N / c⌋.
"""

from __future__ import annotations

from dataclasses import dataclass

from pcap_tools.errors import PlanError

__all__ = ["Population", "parse_hosts"]


@dataclass(frozen=True)
class Population:
    """Hosts of the home and of the external class, for each IP version; None is without bound."""

    home: int | None = None
    external: int | None = None

    def limit(self, name: str) -> int | None:
        """Hosts of a class by its name."""
        return self.home if name.startswith("home") else self.external


def parse_hosts(text: str) -> Population:
    """What `--hosts` asks: "5000", or "home=200,external=20000". Raises PlanError."""
    wrong = PlanError(f"--hosts {text!r}: give a number, or home=200,external=20000")
    try:
        if "=" not in text:
            both = int(text)
            given = {"home": both, "external": both}
        else:
            given = {name: int(n) for name, n in (part.split("=") for part in text.split(","))}
    except ValueError:
        raise wrong from None
    if not given or not set(given) <= {"home", "external"} or min(given.values()) < 1:
        raise wrong
    return Population(**given)
