"""What numbered MAC addresses become under a plan, and back."""

from __future__ import annotations

import numpy as np
import pytest

from pcap_tools.errors import PlanError
from pcap_tools.plan import AddressPlan
from pcap_tools.space import Space
from pcap_tools.tables import new_macs


def test_a_mac_address_that_the_plan_does_not_know_is_named() -> None:
    from pcap_tools.addresses import none_of

    ranked = dict.fromkeys(("home4", "external4"), none_of(4))
    six = dict.fromkeys(("home6", "external6"), none_of(6))
    stay = none_of(4), none_of(6)
    plan = AddressPlan("key", Space(), {**ranked, **six}, stay, macs=(5,))  # type: ignore[dict-item]
    numbers = np.array([5, 0, (1 << 48) - 1], np.uint64)
    assert (new_macs(plan, new_macs(plan, numbers), back=True) == numbers).all()
    with pytest.raises(PlanError, match="00:00:00:00:00:07"):
        new_macs(plan, np.array([5, 7], np.uint64))
