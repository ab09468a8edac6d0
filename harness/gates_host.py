"""Gates on the hosts: the sampler, clocks, throttling, disk, the generator's own troubles."""

from __future__ import annotations

from harness.gate import Context, Finding, gate
from harness.results import Trial

__all__: list[str] = []

_SAMPLER_SHARE = 0.01
_CLOCK_STEP_S = 0.05
_LEAST_FREE_BYTES = 1 << 30
_QUEUE_SHARE = 1e-3
_QUEUES = ("queue_full", "m_tx_queue_full", "tx_queue_full", "retried_enobufs")
_TROUBLES = ("alloc_error", "tx_drops", "template_drops")
_RETRANSMITS = ("retransmissions", "tcps_sndrexmitpack", "tcps_rexmttimeo", "tcps_conndrops")


def _told(trial: Trial, names: tuple[str, ...]) -> dict[str, float]:
    """Those of the generator's own counters that are above zero."""
    said = trial.sent.extra if trial.sent is not None else {}
    return {name: said[name] for name in names if said.get(name, 0) > 0}


def _listed(found: dict[str, float]) -> Finding | None:
    if not found:
        return None
    return Finding(", ".join(f"{name} {n:,.0f}" for name, n in found.items()), found)


@gate(
    "generator-queue-full",
    "warning",
    "The generator's transmit queue was full",
    "The interface or the link is at its limit: lower the load, or use a faster one.",
)
def _generator_queue_full(trial: Trial, context: Context) -> Finding | None:
    full = _told(trial, _QUEUES)
    # A retry that succeeds is no loss; many of them mean that the rate is the link's.
    if trial.sent is None or sum(full.values()) <= _QUEUE_SHARE * trial.sent.packets:
        return None
    return _listed(full)


@gate(
    "generator-trouble",
    "invalid",
    "The generator dropped packets or ran out of memory",
    "Give the generator more memory (hugepages), fewer concurrent flows, or a lower load.",
)
def _generator_trouble(trial: Trial, context: Context) -> Finding | None:
    return _listed(_told(trial, _TROUBLES))


@gate(
    "generator-retransmits",
    "warning",
    "The generator's TCP stack retransmitted or gave connections up",
    "Packets were lost between its two ports: the load was not the one planned. Look at the path "
    "and at the generator's own drops.",
)
def _generator_retransmits(trial: Trial, context: Context) -> Finding | None:
    return _listed(_told(trial, _RETRANSMITS))


@gate(
    "sampler-failed",
    "info",
    "The sensor's host was not read during the trial",
    "What the host did is not observable in this trial; the verdict has less to go by.",
)
def _sampler_failed(trial: Trial, context: Context) -> Finding | None:
    if trial.host is None or trial.host.failure is None:
        return None
    return Finding(" ".join(trial.host.failure.split()), {})


@gate(
    "sampler-cost",
    "warning",
    "The sampler cost more than 1 % of a core",
    "Sample less often: what watches the sensor takes its CPU.",
)
def _sampler_cost(trial: Trial, context: Context) -> Finding | None:
    host = trial.host
    if host is None or host.sampler_cpu_s is None or not host.seconds:
        return None
    share = host.sampler_cpu_s / host.seconds
    text = f"{host.sampler_cpu_s:.2f} s of CPU in {host.seconds:.1f} s"
    raw = trial.after.raw if trial.after is not None else {}
    if span := raw.get("probebench.sampler_s", 0.0):  # the sensor driver's own agent
        own = raw["probebench.sampler_cpu_s"]
        share += own / span
        text += f", and {own:.2f} s in {span:.1f} s for the sensor's agent"
    if share <= _SAMPLER_SHARE:
        return None
    numbers = {"cpu_s": host.sampler_cpu_s, "share": share}
    return Finding(f"{text}: {100 * share:.1f} % of a core", numbers)


@gate(
    "clock-step",
    "warning",
    "The sensor host's clock was set during the trial",
    "Let NTP slew and not step; time stamps of alerts of this trial are off by the step.",
)
def _clock_step(trial: Trial, context: Context) -> Finding | None:
    host = trial.host
    if host is None or host.before is None or host.after is None:
        return None
    ran, told = host.after.t - host.before.t, host.after.wall - host.before.wall
    if abs(told - ran) <= _CLOCK_STEP_S:
        return None
    return Finding(
        f"its time of day went on by {told:.3f} s in {ran:.3f} s", {"wall_s": told, "s": ran}
    )


@gate(
    "throttled",
    "warning",
    "A CPU of the sensor's host was throttled for its heat",
    "Cool the host, or fix the frequency below the one that throttles: a hot CPU is another CPU.",
)
def _throttled(trial: Trial, context: Context) -> Finding | None:
    host = trial.host
    if host is None or host.before is None or host.after is None:
        return None
    first = host.before.throttled
    more = sum(max(0, n - first.get(cpu, 0)) for cpu, n in host.after.throttled.items())
    if not more:
        return None
    return Finding(f"{more:,} throttling events", {"events": more})


@gate(
    "disk-nearly-full",
    "warning",
    "The volume with the sensor's logs is nearly full",
    "Free some space: a full disk loses alerts without a word.",
)
def _disk_nearly_full(trial: Trial, context: Context) -> Finding | None:
    after = trial.host.after if trial.host is not None else None
    if after is None or "free_bytes" not in after.disk:
        return None
    free = after.disk["free_bytes"]
    if free >= _LEAST_FREE_BYTES:
        return None
    return Finding(f"{free / 2**20:,.0f} MiB are free", {"free_bytes": free})
