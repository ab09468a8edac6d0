"""Counters by SNMP: v2c and v3, single objects and whole columns of a table.

A Counter32 is unwrapped as such whatever the inventory says. sysUpTime is read along: an agent that
began anew has lost its counters.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine
from typing import Any, Literal, TypeVar

from pydantic import Field, field_validator, model_validator

from harness.errors import ConfigError, SensorFailed
from harness.sensors.appliance.options import ApplianceOptions, CounterSpec, Strict, read
from harness.sensors.appliance.readings import Reading, number, reading
from harness.sensors.appliance.secret import Secret
from harness.sensors.appliance.sensor import ApplianceSensor
from lab.host import Host
from lab.inventory import SensorSpec

__all__ = ["SnmpOptions", "SnmpSource", "make_snmp"]

SYS_UPTIME = "1.3.6.1.2.1.1.3.0"
SYS_DESCR = "1.3.6.1.2.1.1.1.0"
_PER_REQUEST = 10  # objects: many agents refuse more than fits a datagram

_AUTH = {
    "md5": "USM_AUTH_HMAC96_MD5",
    "sha": "USM_AUTH_HMAC96_SHA",
    "sha224": "USM_AUTH_HMAC128_SHA224",
    "sha256": "USM_AUTH_HMAC192_SHA256",
    "sha384": "USM_AUTH_HMAC256_SHA384",
    "sha512": "USM_AUTH_HMAC384_SHA512",
}
_PRIVACY = {
    "des": "USM_PRIV_CBC56_DES",
    "aes": "USM_PRIV_CFB128_AES",
    "aes192": "USM_PRIV_CFB192_AES",
    "aes256": "USM_PRIV_CFB256_AES",
}


class SnmpCounter(CounterSpec):
    """`oid` of an object, or a list of them to be summed; with `walk`, everything below it."""

    oid: str | tuple[str, ...]
    walk: bool = False

    @field_validator("oid")
    @classmethod
    def _numeric(cls, oid: str | tuple[str, ...]) -> str | tuple[str, ...]:
        for one in (oid,) if isinstance(oid, str) else oid:
            if not all(part.isdigit() for part in one.strip(".").split(".")):
                raise ValueError(
                    f"{one!r}: give the number (1.3.6.1.2.1.31.1.1.1.7.2), see snmptranslate -On"
                )
        return oid

    @property
    def oids(self) -> tuple[str, ...]:
        """Without a leading dot."""
        return tuple(o.strip(".") for o in ((self.oid,) if isinstance(self.oid, str) else self.oid))


class SnmpUser(Strict):
    """A user of SNMPv3; without `auth` noAuthNoPriv, without `privacy` authNoPriv."""

    name: str
    auth: Secret | None = None
    auth_protocol: Literal["md5", "sha", "sha224", "sha256", "sha384", "sha512"] = "sha"
    privacy: Secret | None = None
    privacy_protocol: Literal["des", "aes", "aes192", "aes256"] = "aes"

    @model_validator(mode="after")
    def _ordered(self) -> SnmpUser:
        if self.privacy is not None and self.auth is None:
            raise ValueError("SNMPv3 has no privacy without auth")
        return self


class SnmpOptions(ApplianceOptions[SnmpCounter]):
    """`community` for v2c, `user` for v3. `timeout` (s) is for one request, sent `retries` + 1
    times."""

    address: str = Field(min_length=1)
    port: int = Field(default=161, ge=1, le=65535)
    community: Secret | None = None
    user: SnmpUser | None = None
    context: str = ""
    timeout: float = Field(default=2.0, gt=0)
    retries: int = Field(default=2, ge=0, le=10)

    @model_validator(mode="after")
    def _one_version(self) -> SnmpOptions:
        if (self.community is None) == (self.user is None):
            raise ValueError("give community (SNMPv2c) or user (SNMPv3)")
        return self


def _library() -> Any:
    try:
        from pysnmp.hlapi.v3arch import asyncio as hlapi
    except ImportError:
        raise ConfigError(
            'inventory: sensor.driver = "snmp" needs the package pysnmp: '
            "pip install 'probebench[snmp]'"
        ) from None
    return hlapi


R = TypeVar("R")


class SnmpSource:
    """`harness.sensors.appliance.source.Source` by SNMP, from the orchestrator."""

    def __init__(self, options: SnmpOptions) -> None:
        self._options = options
        self.where = f"{options.address}:{options.port} (SNMP)"
        self._counters = options.everything()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._engine: Any = None

    # -- the library ------------------------------------------------------------------------

    def _do(self, work: Coroutine[Any, Any, R]) -> R:
        if self._loop is None:
            self._loop = asyncio.new_event_loop()
        return self._loop.run_until_complete(work)

    def _who(self, lib: Any) -> Any:
        """Credentials, read anew for each engine. Raises ConfigError."""
        options = self._options
        if options.community is not None:
            return lib.CommunityData(options.community.read("sensor.options.community"), mpModel=1)
        user = options.user
        assert user is not None
        keys: dict[str, Any] = {}
        if user.auth is not None:
            keys["authKey"] = user.auth.read("sensor.options.user.auth")
            keys["authProtocol"] = getattr(lib, _AUTH[user.auth_protocol])
        if user.privacy is not None:
            keys["privKey"] = user.privacy.read("sensor.options.user.privacy")
            keys["privProtocol"] = getattr(lib, _PRIVACY[user.privacy_protocol])
        return lib.UsmUserData(user.name, **keys)

    async def _arguments(self, lib: Any) -> tuple[Any, ...]:
        options = self._options
        if self._engine is None:
            self._engine = lib.SnmpEngine()
        try:
            target = await lib.UdpTransportTarget.create(
                (options.address, options.port), timeout=options.timeout, retries=options.retries
            )
        except Exception as error:  # the library wraps gaierror in an exception of its own
            raise SensorFailed(f"{self.where}: cannot be asked: {error}") from None
        context = lib.ContextData(contextName=options.context.encode())
        return self._engine, self._who(lib), target, context

    def _judge(self, answer: Any, asked: list[str]) -> None:
        indication, status, index, _ = answer
        if indication:
            text = str(indication)
            advice = "see address, port and the agent's access list"
            if "timeout" not in text.lower() and "before" not in text.lower():
                advice = "see community or user"
            raise SensorFailed(f"{self.where}: {text}; {advice}")
        if status:
            at = asked[int(index) - 1] if 0 < int(index) <= len(asked) else asked[0]
            raise SensorFailed(f"{self.where}: {status.prettyPrint()} at {at}")

    async def _get(self, oids: list[str]) -> dict[str, Any]:
        """Values by OID; what the agent does not have is left out."""
        lib = _library()
        arguments = await self._arguments(lib)
        found: dict[str, Any] = {}
        for start in range(0, len(oids), _PER_REQUEST):
            part = oids[start : start + _PER_REQUEST]
            asked = [lib.ObjectType(lib.ObjectIdentity(oid)) for oid in part]
            answer = await lib.get_cmd(*arguments, *asked, lookupMib=False)
            self._judge(answer, part)
            for oid, (_, value) in zip(part, answer[3], strict=True):
                if not _missing(value):
                    found[oid] = value
        return found

    async def _walk(self, oid: str) -> dict[str, Any]:
        """Everything below an OID."""
        lib = _library()
        arguments = await self._arguments(lib)
        found: dict[str, Any] = {}
        start = lib.ObjectType(lib.ObjectIdentity(oid))
        # Wherever the table ends the library stops; the bound is for agents that never end.
        async for answer in lib.bulk_walk_cmd(
            *arguments, 0, 25, start, lookupMib=False, lexicographicMode=False, maxRows=4096
        ):
            self._judge(answer, [oid])
            for name, value in answer[3]:
                if not _missing(value):
                    found[str(name)] = value
        return found

    # -- the seam ---------------------------------------------------------------------------

    def describe(self) -> str:
        """The first line of sysDescr."""
        value = self._do(self._get([SYS_DESCR])).get(SYS_DESCR)
        lines = "" if value is None else value.prettyPrint()
        return lines.splitlines()[0].strip()[:120] if lines else ""

    def read(self) -> Reading:
        """All objects in as few requests as fit; walks one by one."""
        return self._do(self._read())

    async def _read(self) -> Reading:
        begun = time.monotonic()
        wanted = self._counters
        single = [oid for spec in wanted.values() if not spec.walk for oid in spec.oids]
        got = await self._get([*dict.fromkeys(single), SYS_UPTIME])
        values: dict[str, dict[str, float]] = {}
        bits: dict[str, int] = {}
        for name, spec in wanted.items():
            found = {oid: got[oid] for oid in spec.oids if oid in got}
            if spec.walk:
                for oid in spec.oids:
                    found.update(await self._walk(oid))
            lacking = [oid for oid in spec.oids if oid not in got] if not spec.walk else []
            if (lacking or not found) and spec.absent == "error":
                raise SensorFailed(
                    f"{self.where}: counter {name}: the agent has nothing at "
                    f"{(lacking or list(spec.oids))[0]}; see snmpwalk, and what the user may read"
                )
            values[name] = {oid: self._number(name, oid, value) for oid, value in found.items()}
            narrow = any(type(value).__name__ == "Counter32" for value in found.values())
            bits[name] = 32 if narrow else spec.bits
        if "uptime" not in values and SYS_UPTIME in got:
            ticks = int(got[SYS_UPTIME])
            # TimeTicks wrap after 497 days: in the hour before, it says nothing about a restart.
            if ticks < 2**32 - 360_000:
                values["uptime"] = {SYS_UPTIME: ticks / 100}
        return reading(values, bits, begun)

    def _number(self, name: str, oid: str, value: Any) -> float:
        try:
            return int(value)
        except (TypeError, ValueError):
            pass
        try:
            return number(value.prettyPrint())  # some agents give Counter64 as text
        except ValueError as error:
            raise SensorFailed(f"{self.where}: counter {name} at {oid}: {error}") from None

    def close(self) -> None:
        """Close the socket; idempotent."""
        if self._engine is not None:
            self._engine.close_dispatcher()
            self._engine = None
        if self._loop is not None:
            self._loop.close()
            self._loop = None


def _missing(value: Any) -> bool:
    return type(value).__name__ in ("NoSuchObject", "NoSuchInstance", "EndOfMibView", "Null")


def make_snmp(host: Host, spec: SensorSpec) -> ApplianceSensor:
    """The `snmp` driver."""
    options = read(SnmpOptions, spec.options)
    return ApplianceSensor("snmp", host, options, SnmpSource(options))
