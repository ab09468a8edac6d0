"""The first page's proof: one corpus, one modest load, four ways to replay it.

What each way hides is not argued but measured: packets lost, flows the sensor saw, alerts due and
alerts raised. The naive ways are what people do: `tcpreplay --loop`, with `--unique-ip`, and on the
capture as it came, half-flows and all.
"""

from __future__ import annotations

from pathlib import Path

from harness.corpus import describe
from harness.generators.base import Generator
from harness.generators.tcpreplay import LoopReplay
from harness.model import Corpus, Load
from harness.results import Trial
from harness.session import Session
from harness.sweep import Sweeper
from harness.trial import TrialSpec

__all__ = ["run_bias"]


def run_bias(sweeper: Sweeper, raw: Path | None, pps: float, seconds: float) -> list[Trial]:
    """Replay the session's corpus three ways, and the uncleaned capture `raw` looped, if given.

    Every way sends the same number of copies at `pps` packets/s.
    """
    session = sweeper.session
    copies = max(1, int(seconds * pps / session.corpus.packets))
    trials = []
    if raw is not None:
        uncleaned = describe(raw, session.corpus.home, session.corpus.key, None)
        generator = _loop(session, uncleaned, unique=False)
        trials.append(_replay(sweeper, "raw-loop", generator, uncleaned, copies, pps))
    for method in ("loop", "unique-ip"):
        generator = _loop(session, session.corpus, unique=method == "unique-ip")
        trials.append(_replay(sweeper, method, generator, session.corpus, copies, pps))
    trials.append(_replay(sweeper, "fresh", session.rig.generator, session.corpus, copies, pps))
    return trials


def _loop(session: Session, corpus: Corpus, *, unique: bool) -> Generator:
    generator = LoopReplay(
        session.rig.transmit[0].host, session.inventory.generator, unique_ip=unique
    )
    generator.prepare(corpus)
    return generator


def _replay(
    sweeper: Sweeper, method: str, generator: Generator, corpus: Corpus, copies: int, pps: float
) -> Trial:
    load = Load("pps", pps, (copies + 0.5) * corpus.packets / pps)
    return sweeper.trial(TrialSpec(f"b-{method}", "bias", load, 0, method=method), generator)
