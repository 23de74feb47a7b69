"""The settings of the service: their sections and keys. `hs_stream.service.settings_file` says where they come from.

Durations are text (``"10s"``); lists in the environment are JSON or separated by commas. No ``repr`` shows a password:
URLs are shown by `redacted`, tokens and passwords are read from files when needed.
"""

from __future__ import annotations

import ipaddress
import json
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, PydanticBaseSettingsSource, SettingsConfigDict

from hs_stream.core.errors import ConfigurationError
from hs_stream.core.size import PAGE
from hs_stream.core.time import parse_duration, parse_time
from hs_stream.core.urls import checked_url, redacted
from hs_stream.entry_points import STORES
from hs_stream.service.lease import LEASE_MS

__all__ = ["ENVIRONMENT_PREFIX", "TOKEN_VARIABLE", "Settings", "read_secret"]

ENVIRONMENT_PREFIX = "HS_STREAM__"
TOKEN_VARIABLE = f"{ENVIRONMENT_PREFIX}HTTP__TOKEN_FILE"
"""Names the file that holds the token that may do everything."""


def read_secret(path: str, key: str) -> str:
    """The first line of the file at ``path``, without the line's end. `ConfigurationError` names ``key``."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise ConfigurationError(
            f"{key}: cannot read {path}: {reason}", hint="name a file that the service's user may read"
        ) from None
    secret = text.partition("\n")[0].strip("\r\n")
    if not secret:
        raise ConfigurationError(
            f"{key}: the first line of {path} is empty", hint="write the secret into its first line"
        )
    return secret


def _milliseconds(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        raise ValueError(f"{value!r} is not a duration: write for example '30s', '5m' or '1h30m'")
    result = parse_duration(value)
    if result < 0:
        raise ValueError(f"{value!r} is negative: write 0s or more")
    return result


def _texts(value: Any) -> Any:
    if isinstance(value, str):
        text = value.strip()
        if text.startswith("["):
            return tuple(json.loads(text))
        return tuple(part.strip() for part in text.split(",") if part.strip())
    return tuple(value) if isinstance(value, list) else value


def _instant(value: Any) -> int:
    if isinstance(value, str):
        # A fixed bound: relative times would move with every restart.
        if value.strip()[:1] in "+-" or value.strip() == "now":
            raise ValueError(f"{value!r} is relative: write an ISO time such as 2010-01-01T00:00:00Z")
        return parse_time(value, now=0)
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    raise ValueError(f"{value!r} is not a time: write for example '2010-01-01T00:00:00Z'")


Milliseconds = Annotated[int, BeforeValidator(_milliseconds)]
Texts = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_texts)]
Time = Annotated[int, BeforeValidator(_instant)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class StoreSettings(_Section):
    """``[store]``. ``data_dir``: of ``embedded://``. ``*_days``: how long MongoDB keeps the books.

    ``lease``: after so long without a sign of life of a service, another one on another host may take the store over.
    """

    url: str = Field(default="mongodb://localhost:27017/hs_stream", repr=False)
    data_dir: str = "var"
    history_days: Annotated[float, Field(gt=0)] = 90.0
    dead_letter_days: Annotated[float, Field(gt=0)] = 30.0
    lease: Annotated[Milliseconds, Field(ge=1000)] = LEASE_MS

    @field_validator("url")
    @classmethod
    def _known_scheme(cls, url: str) -> str:
        scheme, separator, _ = url.partition("://")
        if not separator or scheme not in (*STORES.names(), "embedded"):
            raise ValueError(
                f"{redacted(url)!r} is not a store: write mongodb://host/database, sqlite:///path, memory:// or "
                "embedded://, or install the plug-in that brings it"
            )
        return url

    def __repr_args__(self) -> Any:
        return [*super().__repr_args__(), ("url", redacted(self.url))]


class MqttSettings(_Section):
    """``[mqtt]``. What is longer than ``max_payload`` (in) or ``max_publish`` (out) bytes becomes a dead letter.

    ``prefix``: of the topics out.
    """

    url: str = Field(default="mqtt://localhost:1883", repr=False)
    client_id: Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[^+#/\x00-\x1f]+$")] = "hs-stream"
    username: str = ""
    password_file: str = ""
    ca_file: str = ""
    cert_file: str = ""
    key_file: str = ""
    version: Literal[5, 3] = 5
    prefix: Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[^+#\x00/$][^+#\x00]*$")] = "hs"
    max_payload: Annotated[int, Field(ge=256, le=256 * 1024 * 1024)] = 1_048_576
    max_publish: Annotated[int, Field(ge=256, le=256 * 1024 * 1024)] = 1_048_576

    @field_validator("version", mode="before")
    @classmethod
    def _number(cls, value: Any) -> Any:
        return int(value) if isinstance(value, str) and value.isdigit() else value

    @field_validator("url")
    @classmethod
    def _known_scheme(cls, url: str) -> str:
        parts = checked_url(url)
        if parts.scheme not in ("mqtt", "mqtts") or not parts.hostname:
            raise ValueError(f"{redacted(url)!r} is not a broker: write mqtt://host:1883, or mqtts://host:8883 for TLS")
        if not 0 < (parts.port or 1883) < 65536:
            raise ValueError(f"{redacted(url)!r} has no valid port")
        return url

    def __repr_args__(self) -> Any:
        return [*super().__repr_args__(), ("url", redacted(self.url))]


class HttpSettings(_Section):
    """``[http]``. ``port`` 0 takes any free one.

    ``token_file`` holds the token that may do everything, ``read_token_file`` one that may read; with either, every
    request but /healthz needs one. ``cert_file`` and ``key_file`` (PEM) turn TLS on. ``cors_origins``: other sites
    whose pages may use the API. ``viewer``: ``true``, ``false``, or ``"auto"`` for where ``hs_stream[viewer]`` is
    installed.
    """

    host: Annotated[str, Field(min_length=1)] = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 8080
    token_file: str = ""
    read_token_file: str = ""
    cert_file: str = ""
    key_file: str = ""
    cors_origins: Texts = ()
    max_subscribers: Annotated[int, Field(ge=0, le=900)] = 500
    viewer: bool | Literal["auto"] = "auto"

    @field_validator("cors_origins")
    @classmethod
    def _exact_origins(cls, origins: tuple[str, ...]) -> tuple[str, ...]:
        for origin in origins:
            parts = urlsplit(origin)
            if parts.scheme not in ("http", "https") or origin != f"{parts.scheme}://{parts.netloc}":
                raise ValueError(f"{origin!r} is no origin: write for example 'https://dashboard.example:8443'")
        return origins

    @model_validator(mode="after")
    def _both_files(self) -> HttpSettings:
        if bool(self.cert_file) != bool(self.key_file):
            raise ValueError("TLS needs both: write cert_file and key_file")
        return self

    @property
    def loopback(self) -> bool:
        """Whether only this machine can reach ``host``."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False


class ExecutorSettings(_Section):
    """``[executor]``. ``max_in_flight``: readings taken in but not yet durable. The local backend has one worker."""

    backend: Literal["local"] = "local"
    workers: Annotated[int, Field(ge=1, le=1)] = 1
    max_in_flight: Annotated[int, Field(ge=1, le=1_000_000)] = 20_000


Bytes = Annotated[int, Field(ge=65_536, le=1 << 40)]


class MemorySettings(_Section):
    """``[memory]``, in bytes: what is held of data whose size others decide. Whatever has more is forgotten or waits.

    ``tails``: the newest instances of all streams. ``in_flight``: payloads that are not durable yet. ``codecs``: what
    the codecs of all sources remember of messages before. ``live``: the latest events of all live streams.
    ``sending``: what clients of HTTP were sent and have not read. ``page``: one page of instances or dead letters.
    """

    tails: Bytes = 64 << 20
    in_flight: Bytes = 16 << 20
    codecs: Bytes = 32 << 20
    live: Bytes = 64 << 20
    sending: Bytes = 64 << 20
    page: Bytes = PAGE


class FileSettings(_Section):
    """``[files]``. ``directory``: sources read files in it or below, and no others; empty for any.

    A workflow that comes over HTTP names files below it, or below the working directory where it is empty; without a
    token it names none.
    """

    directory: str = ""


class WatermarkSettings(_Section):
    """``[watermark]``, in milliseconds here. A reading over MQTT before ``earliest`` is of a clock that was not set.

    One that is older than ``backdate`` as it arrives moves no beginning of nodes without inputs further back than that,
    or than 10,000 of their ticks.
    """

    lateness: Milliseconds = 0
    idle: Milliseconds = 10_000
    max_future: Milliseconds = 5_000
    backdate: Milliseconds = 31 * 86_400_000
    earliest: Time = parse_time("2010-01-01T00:00:00Z", now=0)


class ToolSettings(_Section):
    """``[tools]``."""

    paths: Texts = ()
    allow_development_tools: bool = True
    recompute_on: Literal["minor", "major"] = "minor"


LogLevel = Literal["debug", "info", "warning", "error"]


class LoggingSettings(_Section):
    """``[logging]``. ``levels``: of single loggers. ``file_max`` in bytes. Without ``mqtt_topic`` none goes to MQTT."""

    level: LogLevel = "info"
    format: Literal["console", "json"] = "console"
    levels: dict[str, LogLevel] = {}
    file: str = ""
    file_max: Annotated[int, Field(ge=10_000)] = 10_000_000
    file_keep: Annotated[int, Field(ge=1, le=1000)] = 5
    mqtt_topic: Annotated[str, Field(max_length=200, pattern=r"^$|^[^+#\x00/$][^+#\x00]*$")] = ""
    mqtt_level: LogLevel = "warning"


class Settings(BaseSettings):
    """All settings. Made by `load_settings`; frozen."""

    model_config = SettingsConfigDict(
        env_prefix=ENVIRONMENT_PREFIX,
        env_nested_delimiter="__",
        extra="forbid",
        frozen=True,
        hide_input_in_errors=True,
    )
    path: ClassVar[str] = ""

    workflows: Texts = ("config/workflows/*.yaml",)
    store: StoreSettings = StoreSettings()
    mqtt: MqttSettings = MqttSettings()
    http: HttpSettings = HttpSettings()
    executor: ExecutorSettings = ExecutorSettings()
    memory: MemorySettings = MemorySettings()
    files: FileSettings = FileSettings()
    watermark: WatermarkSettings = WatermarkSettings()
    tools: ToolSettings = ToolSettings()
    logging: LoggingSettings = LoggingSettings()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - the base class fixes the names
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """The environment wins over the file, which comes as keyword arguments."""
        return env_settings, init_settings
