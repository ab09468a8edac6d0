"""Length fields of savefiles, whatever they say: read, or refused in one line; never believed."""

from __future__ import annotations

import struct
import tracemalloc
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pcap_tools.capture import open_capture
from pcap_tools.errors import PcapError

FRAME = bytes(12) + b"\x08\x00" + bytes([69]) + bytes(45)
LENGTHS = st.one_of(
    st.integers(0, 200),
    st.sampled_from([262_144, 262_145, 1 << 24, (1 << 24) + 4, 0x7FFFFFFC, 0x80000000, 0xFFFFFFFF]),
    st.integers(0, 0xFFFFFFFF),
)
ORDERS = st.sampled_from("<>")
CHECKED = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
LIMIT = 64 << 20  # bytes: two buffers and their columns are 2 MB


def survives(path: Path, data: bytes) -> None:
    path.write_bytes(data)
    tracemalloc.start()
    try:
        with open_capture(path) as capture:
            for batch in capture.batches():
                assert (batch.offset + batch.caplen <= len(batch.data)).all()
    except PcapError as error:
        assert str(error) and "\n" not in str(error)
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < LIMIT


@CHECKED
@given(order=ORDERS, captured=LENGTHS, wire=LENGTHS, fraction=LENGTHS, tail=st.binary(max_size=80))
def test_pcap_records(
    tmp_path: Path, order: str, captured: int, wire: int, fraction: int, tail: bytes
) -> None:
    head = struct.pack(order + "IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 1)
    good = struct.pack(order + "IIII", 1, 0, len(FRAME), len(FRAME)) + FRAME
    odd = struct.pack(order + "IIII", 2, fraction, captured, wire) + tail
    survives(tmp_path / "t.pcap", head + good + odd + good)


@CHECKED
@given(
    order=ORDERS,
    kind=st.sampled_from([1, 2, 3, 4, 5, 6, 10, 0x0A0D0D0A, 0xBAD, 0x80000001]),
    length=LENGTHS,
    again=st.one_of(st.none(), LENGTHS),
    body=st.lists(LENGTHS, max_size=12),
)
def test_pcapng_blocks(
    tmp_path: Path, order: str, kind: int, length: int, again: int | None, body: list[int]
) -> None:
    words = struct.pack(order + f"{len(body)}I", *body)
    section = struct.pack(order + "IIIHHqI", 0x0A0D0D0A, 28, 0x1A2B3C4D, 1, 0, -1, 28)
    interface = struct.pack(order + "IIHHII", 1, 20, 1, 0, 0, 20)
    size = len(FRAME)
    whole = 32 + size
    head = struct.pack(order + "IIIIIII", 6, whole, 0, 0, 1, size, size)
    packet = head + FRAME + struct.pack(order + "I", whole)
    true = 12 + len(words)
    for said in (length, true):
        end = struct.pack(order + "I", said if again is None else again)
        odd = struct.pack(order + "II", kind, said) + words + end
        survives(tmp_path / "t.pcapng", section + interface + packet + odd + packet)


@CHECKED
@given(
    order=ORDERS,
    code=st.integers(0, 16),
    length=st.integers(0, 0xFFFF),
    value=st.binary(max_size=24),
)
def test_interface_options(
    tmp_path: Path, order: str, code: int, length: int, value: bytes
) -> None:
    options = struct.pack(order + "HH", code, length) + value
    options += bytes(-len(options) % 4)
    size = 20 + len(options)
    section = struct.pack(order + "IIIHHqI", 0x0A0D0D0A, 28, 0x1A2B3C4D, 1, 0, -1, 28)
    interface = struct.pack(order + "IIHHI", 1, size, 1, 0, 0) + options
    simple = struct.pack(order + "III", 3, 16 + 60, 60) + FRAME + struct.pack(order + "I", 76)
    data = section + interface + struct.pack(order + "I", size) + simple
    survives(tmp_path / "t.pcapng", data)
