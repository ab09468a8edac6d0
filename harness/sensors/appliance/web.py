"""One HTTP request: basic or bearer authentication from a secret, TLS verified."""

from __future__ import annotations

import base64
import ssl
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

from pydantic import Field, field_validator, model_validator

from harness.errors import ConfigError, SensorFailed
from harness.sensors.appliance.options import Strict
from harness.sensors.appliance.secret import Secret

__all__ = ["Answer", "Web", "WebOptions"]

_MOST = 64 << 20  # bytes of an answer


class WebOptions(Strict):
    """How the interface is asked. `ca_file` verifies a private certificate; `verify = false` does
    not verify at all, and the run says so. `headers` are for keys that go into one of their own."""

    user: str | None = None
    password: Secret | None = None
    token: Secret | None = None
    headers: dict[str, Secret] = Field(default_factory=dict)
    verify: bool = True
    ca_file: Path | None = None
    timeout: float = Field(default=10.0, gt=0)

    @model_validator(mode="after")
    def _one_way(self) -> WebOptions:
        if (self.user is None) != (self.password is None):
            raise ValueError("user and password belong together")
        if self.user is not None and self.token is not None:
            raise ValueError("give user and password, or token")
        return self

    @field_validator("ca_file")
    @classmethod
    def _home(cls, path: Path | None) -> Path | None:
        return None if path is None else path.expanduser()


class Answer:
    """Text and content type of an answer."""

    def __init__(self, text: str, content_type: str) -> None:
        self.text = text
        self.content_type = content_type


class _SameHost(urllib.request.HTTPRedirectHandler):
    """Follows redirects on the same host only: what is sent along is for that host."""

    def redirect_request(self, req, fp, code, msg, headers, newurl):  # type: ignore[no-untyped-def]
        """The request to the new address, or None to take the redirect as an error."""
        old, new = urllib.parse.urlsplit(req.full_url), urllib.parse.urlsplit(newurl)
        if (old.scheme, old.netloc) != (new.scheme, new.netloc):
            return None
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def check_url(url: str, key: str) -> str:
    """A URL without a secret in it. Raises ConfigError."""
    try:
        parts = urllib.parse.urlsplit(url)
        host = parts.hostname
    except ValueError:
        host = None
    if host is None or parts.scheme not in ("http", "https"):
        raise ConfigError(f"inventory: sensor.options.{key}: give a URL, http:// or https://")
    if parts.username is not None or parts.password is not None:
        raise ConfigError(
            f"inventory: sensor.options.{key}: no user or password in a URL; see user and password"
        )
    return url


class Web:
    """Asks URLs of one sensor, directly: no proxy of the environment is used."""

    def __init__(self, options: WebOptions) -> None:
        self._options = options
        context: ssl.SSLContext | None = None
        if not options.verify:
            context = ssl.create_default_context()
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        elif options.ca_file is not None:
            try:
                context = ssl.create_default_context(cafile=str(options.ca_file))
            except (OSError, ssl.SSLError) as error:
                raise ConfigError(
                    f"inventory: sensor.options.ca_file: cannot read {options.ca_file}: {error}"
                ) from None
        self._opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({}),
            urllib.request.HTTPSHandler(context=context),
            _SameHost(),
        )

    def _headers(self) -> dict[str, str]:
        """Read anew each time: nothing keeps a secret."""
        options = self._options
        headers = {
            name: secret.read(f"sensor.options.headers.{name}")
            for name, secret in options.headers.items()
        }
        if options.token is not None:
            headers["Authorization"] = f"Bearer {options.token.read('sensor.options.token')}"
        if options.user is not None and options.password is not None:
            plain = f"{options.user}:{options.password.read('sensor.options.password')}"
            headers["Authorization"] = "Basic " + base64.b64encode(plain.encode()).decode()
        return headers

    def get(self, url: str, accept: str) -> Answer:
        """The answer to a GET. Raises SensorFailed naming the URL and what to do."""
        request = urllib.request.Request(url, headers={"Accept": accept, **self._headers()})
        try:
            with self._opener.open(request, timeout=self._options.timeout) as answer:
                data: bytes = answer.read(_MOST + 1)
                charset = answer.headers.get_content_charset() or "utf-8"
                kind = answer.headers.get("Content-Type", "")
        except urllib.error.HTTPError as error:
            error.close()
            raise SensorFailed(f"{url}: {_status(error.code)}") from None
        except urllib.error.URLError as error:
            raise SensorFailed(f"{url}: {_reason(error.reason)}") from None
        except (OSError, ValueError) as error:
            raise SensorFailed(f"{url}: {_reason(error)}") from None
        if len(data) > _MOST:
            raise SensorFailed(f"{url}: the answer is larger than {_MOST >> 20} MiB")
        try:
            return Answer(data.decode(charset, "replace"), kind)
        except LookupError:
            return Answer(data.decode("utf-8", "replace"), kind)


def _status(code: int) -> str:
    advice = {
        401: "it wants another user, password or token",
        403: "the user or token may not read this",
        404: "there is nothing at that address; see sensor.options.url",
    }.get(code, "see the sensor's own log")
    if 300 <= code < 400:
        advice = "it sends us to another host; give that address"
    return f"answered HTTP {code}: {advice}"


def _reason(reason: object) -> str:
    if isinstance(reason, ssl.SSLCertVerificationError):
        return (
            f"its certificate is not accepted ({reason.verify_message}); give "
            "sensor.options.ca_file, or verify = false in a closed lab"
        )
    if isinstance(reason, TimeoutError):
        return "no answer in time; see sensor.options.timeout"
    return f"cannot be asked: {getattr(reason, 'strerror', None) or reason}"
