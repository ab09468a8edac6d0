"""Crypto-PAn against its authors' sample trace, and the properties a plan relies on."""

from __future__ import annotations

import ipaddress

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pcap_tools.cryptopan import CryptoPan, key_of
from pcap_tools.pools import DEFAULT_HOME, kept_networks, parse_networks

# The key of sample.cpp and lines of sample_trace_sanitized.dat, Crypto-PAn 1.0 (Xu, Fan 2002).
KEY = bytes.fromhex("1522178d33a4cf80130a5b1649907d10d8988f837979652762574c2d2a842202")
PUBLISHED = {
    "128.11.68.132": "135.242.180.132",
    "129.118.74.4": "134.136.186.123",
    "130.132.252.244": "133.68.164.234",
    "141.223.7.43": "141.167.8.160",
    "141.233.145.108": "141.129.237.235",
    "152.163.225.39": "151.140.114.167",
    "156.29.3.236": "147.225.12.42",
    "165.247.96.84": "162.9.99.234",
    "166.107.77.190": "160.132.178.185",
    "192.102.249.13": "252.138.62.131",
    "192.215.32.125": "252.43.47.189",
    "192.233.80.103": "252.25.108.8",
    "192.41.57.43": "252.222.221.184",
    "193.150.244.223": "253.169.52.216",
    "195.205.63.100": "255.186.223.5",
    "198.200.171.101": "249.199.68.213",
    "198.26.132.101": "249.36.123.202",
    "198.36.213.5": "249.7.21.132",
    "198.51.77.238": "249.18.186.254",
    "199.217.79.101": "248.38.184.213",
    "202.49.198.20": "245.206.7.234",
    "203.12.160.252": "244.248.163.4",
    "204.184.162.189": "243.192.77.90",
    "204.202.136.230": "243.178.4.198",
    "204.29.20.4": "243.33.20.123",
    "205.178.38.67": "242.108.198.51",
    "205.188.147.153": "242.96.16.101",
    "205.188.248.25": "242.96.88.27",
    "205.245.121.43": "242.21.121.163",
    "207.105.49.5": "241.118.205.138",
    "207.135.65.238": "241.202.129.222",
    "207.155.9.214": "241.220.250.22",
    "207.188.7.45": "241.255.249.220",
    "207.25.71.27": "241.33.119.156",
    "207.33.151.131": "241.1.233.131",
    "208.147.89.59": "227.237.98.191",
    "208.234.120.210": "227.154.67.17",
    "208.28.185.184": "227.39.94.90",
    "208.52.56.122": "227.8.63.165",
    "209.12.231.7": "226.243.167.8",
    "209.238.72.3": "226.6.119.243",
    "209.246.74.109": "226.22.124.76",
    "209.68.60.238": "226.184.220.233",
    "209.85.249.6": "226.170.70.6",
    "212.120.124.31": "228.135.163.231",
    "212.146.8.236": "228.19.4.234",
    "212.186.227.154": "228.59.98.98",
    "212.204.172.118": "228.71.195.169",
    "212.206.130.201": "228.69.242.193",
    "216.148.237.145": "235.84.194.111",
    "216.157.30.252": "235.89.31.26",
    "216.184.159.48": "235.96.225.78",
    "216.227.10.221": "235.28.253.36",
    "216.254.18.172": "235.7.16.162",
    "216.32.132.250": "235.192.139.38",
    "216.35.217.178": "235.195.157.81",
    "24.0.250.221": "100.15.198.226",
    "24.13.62.231": "100.2.192.247",
    "24.14.213.138": "100.1.42.141",
    "24.5.0.80": "100.9.15.210",
    "24.7.198.88": "100.10.6.25",
    "24.94.26.44": "100.88.228.35",
    "38.15.67.68": "64.3.66.187",
    "4.3.88.225": "124.60.155.63",
    "63.14.55.111": "95.9.215.7",
    "63.195.241.44": "95.179.238.44",
    "63.97.7.140": "95.97.9.123",
    "64.14.118.196": "0.255.183.58",
    "64.34.154.117": "0.221.154.117",
    "64.39.15.238": "0.219.7.41",
}
LOW = (1 << 64) - 1


def mapped(pan: CryptoPan, texts: list[str], back: bool = False) -> list[str]:
    numbers = [int(ipaddress.ip_address(t)) for t in texts]
    version = ipaddress.ip_address(texts[0]).version
    walk = pan.originals if back else pan.images
    high, low = walk(
        version,  # type: ignore[arg-type]
        np.array([n >> 64 for n in numbers], np.uint64),
        np.array([n & LOW for n in numbers], np.uint64),
    )
    number = ipaddress.IPv4Address if version == 4 else ipaddress.IPv6Address
    return [str(number(int(h) << 64 | int(lo))) for h, lo in zip(high, low, strict=True)]


def test_the_authors_sample_trace() -> None:
    assert mapped(CryptoPan(KEY), list(PUBLISHED)) == list(PUBLISHED.values())
    assert mapped(CryptoPan(KEY), list(PUBLISHED.values()), back=True) == list(PUBLISHED)


def naive(pan: CryptoPan, text: str) -> str:
    """The published algorithm, a bit at a time."""
    from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

    encrypt = Cipher(algorithms.AES(pan.key[:16]), modes.ECB()).encryptor().update
    pad = int.from_bytes(encrypt(pan.key[16:]), "big")
    address = ipaddress.ip_address(text)
    width = address.max_prefixlen
    number = int(address) << (128 - width)
    flips = 0
    for bit in range(width):
        mask = (1 << 128) - (1 << (128 - bit))
        block = (number & mask) | (pad & ~mask & ((1 << 128) - 1))
        flips |= (encrypt(block.to_bytes(16, "big"))[0] >> 7) << (127 - bit)
    return str(type(address)((number ^ flips) >> (128 - width)))


@given(
    texts=st.sampled_from([4, 6]).flatmap(
        lambda v: st.lists(st.ip_addresses(v=v).map(str), min_size=1, max_size=12)
    ),
    key=st.text(max_size=4),
)
@settings(max_examples=25, deadline=None)
def test_many_at_a_time_is_one_at_a_time(texts: list[str], key: str) -> None:
    pan = CryptoPan(key_of(key))
    assert mapped(pan, texts) == [naive(pan, text) for text in texts]


FIXED = (*kept_networks(), *parse_networks(DEFAULT_HOME))


@given(
    texts=st.sampled_from([4, 6]).flatmap(
        lambda v: st.lists(st.ip_addresses(v=v).map(str), min_size=2, max_size=12)
    )
)
@settings(max_examples=40, deadline=None)
def test_fixed_networks_stay_and_prefixes_are_preserved(texts: list[str]) -> None:
    pan = CryptoPan(key_of("k"), FIXED)
    images = mapped(pan, texts)
    assert mapped(pan, images, back=True) == [str(ipaddress.ip_address(t)) for t in texts]
    for text, image in zip(texts, images, strict=True):
        before, after = ipaddress.ip_address(text), ipaddress.ip_address(image)
        for network in FIXED:
            if network.version == before.version:
                assert (before in network) == (after in network)
    first, second = (int(ipaddress.ip_address(t)) for t in texts[:2])
    one, two = (int(ipaddress.ip_address(t)) for t in images[:2])
    assert (first ^ second).bit_length() == (one ^ two).bit_length()


def test_a_key_of_another_length_is_refused() -> None:
    with pytest.raises(ValueError, match="32 bytes, not 3"):
        CryptoPan(b"key")
