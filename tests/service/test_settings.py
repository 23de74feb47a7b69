"""Settings: every key, the environment above the file, and every mistake with its place."""

from __future__ import annotations

from pathlib import Path

import pytest

from hs_stream.core.errors import ConfigurationError
from hs_stream.service.settings import Settings, read_secret
from hs_stream.service.settings_file import load_settings

EVERYTHING = """
workflows = ["a.yaml", "flows/*.yaml"]
[store]
url = "sqlite:///var/x.db"
[mqtt]
url = "mqtts://broker:8884"
client_id = "me"
username = "u"
password_file = "pw"
ca_file = "ca"
cert_file = "cert"
key_file = "key"
version = 3
prefix = "home/hs"
[http]
host = "0.0.0.0"
port = 0
token_file = "token"
[executor]
backend = "local"
workers = 1
max_in_flight = 5
[watermark]
lateness = "2m"
idle = "1h30m"
max_future = "250ms"
earliest = "2001-01-01T00:00:00Z"
[tools]
paths = ["mine"]
allow_development_tools = false
recompute_on = "major"
[logging]
level = "debug"
format = "json"
levels = {"hs_stream.engine" = "warning"}
file = "var/log/hs.log"
file_max = 50000
file_keep = 2
mqtt_topic = "home/log"
mqtt_level = "info"
"""


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HS_STREAM_CONFIG", raising=False)


def write(text: str, name: str = "hs.toml") -> Path:
    path = Path(name)
    path.parent.mkdir(exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def failure(text: str) -> str:
    with pytest.raises(ConfigurationError) as caught:
        load_settings(write(text))
    return str(caught.value)


def test_every_key_is_read() -> None:
    settings = load_settings(write(EVERYTHING))
    assert settings.workflows == ("a.yaml", "flows/*.yaml")
    assert (settings.watermark.lateness, settings.watermark.idle, settings.watermark.max_future) == (
        120_000,
        5_400_000,
        250,
    )
    assert settings.watermark.earliest == 978_307_200_000
    assert settings.mqtt.version == 3
    assert settings.mqtt.prefix == "home/hs"
    assert settings.tools.paths == ("mine",)
    assert not settings.tools.allow_development_tools
    assert settings.http.port == 0
    assert settings.logging.levels == {"hs_stream.engine": "warning"}
    assert (settings.logging.mqtt_topic, settings.logging.mqtt_level) == ("home/log", "info")


def test_without_a_file_everything_has_its_default() -> None:
    settings = load_settings()
    assert settings == Settings()
    assert settings.watermark.idle == 10_000
    assert settings.http.host == "127.0.0.1"


def test_where_the_file_is_looked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    write("[http]\nport = 1\n", "hs-stream.toml")
    assert load_settings().http.port == 1
    write("[http]\nport = 2\n", "config/hs-stream.toml")
    assert load_settings().http.port == 2
    monkeypatch.setenv("HS_STREAM_CONFIG", str(write("[http]\nport = 3\n", "third.toml")))
    assert load_settings().http.port == 3
    assert load_settings(write("[http]\nport = 4\n", "fourth.toml")).http.port == 4


def test_a_named_file_that_is_missing_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigurationError, match=r"--config names nowhere\.toml"):
        load_settings("nowhere.toml")
    monkeypatch.setenv("HS_STREAM_CONFIG", "gone.toml")
    with pytest.raises(ConfigurationError, match=r"\$HS_STREAM_CONFIG names gone.toml"):
        load_settings()


def test_the_environment_wins_over_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HS_STREAM__WATERMARK__IDLE", "3s")
    monkeypatch.setenv("HS_STREAM__TOOLS__PATHS", "a, b")
    monkeypatch.setenv("HS_STREAM__WORKFLOWS", '["x.yaml"]')
    monkeypatch.setenv("HS_STREAM__MQTT__VERSION", "3")
    settings = load_settings(write('[watermark]\nidle = "1s"\nlateness = "4s"\n'))
    assert (settings.watermark.idle, settings.watermark.lateness) == (3_000, 4_000)
    assert settings.tools.paths == ("a", "b")
    assert settings.workflows == ("x.yaml",)
    assert settings.mqtt.version == 3


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("[mqtt]\nclientid = 'a'\n", 2, "did you mean client_id"),
        ("\n[mqttt]\nurl = 'a'\n", 2, "did you mean mqtt"),
        ("[mqtt]\nversion = 4\n", 2, "5, 3"),
        ("[mqtt]\nurl = 'http://x'\n", 2, "mqtt://host:1883"),
        ("[mqtt]\nport =\n", 2, "not TOML"),
        ("[store]\nurl = 'mysql://u:topsecret@x'\n", 2, "embedded://"),
        ("[watermark]\n\nidle = 'ten'\n", 3, "'5m'"),
        ("[watermark]\nidle = '-1s'\n", 2, "negative"),
        ("[watermark]\nearliest = '2010-01-01'\n", 2, "no time zone"),
        ("[watermark]\nearliest = '-1h'\n", 2, "relative"),
        ("[http]\nport = 'x'\n", 2, "http.port"),
        ("[http]\nport = 70000\n", 2, "http.port"),
        ("[http]\nhost = '0.0.0.0'\n", 2, "token_file"),
        ("[executor]\nbackend = 'dask'\n", 2, "'local'"),
        ("[tools]\nrecompute_on = 'patch'\n", 2, "'minor'"),
        ("workflows = 3\n", 1, "list of texts"),
        ("[logging]\nmqtt_topic = 'home/#'\n", 2, "logging.mqtt_topic"),
        ("[logging]\nlevels = {a = 'loud'}\n", 2, "'debug', 'info', 'warning'"),
        ("[logging]\nfile_max = 10\n", 2, "10000"),
        ("store = 'x'\n", 1, "[store]"),
    ],
)
def test_a_mistake_names_file_line_and_key(text: str, line: int, words: str) -> None:
    message = failure(text)
    assert message.startswith(f"hs.toml:{line}: ")
    assert words in message
    assert "topsecret" not in message


def test_a_mistake_in_the_environment_names_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HS_STREAM__WATERMARK__IDLE", "ten")
    with pytest.raises(ConfigurationError, match=r"HS_STREAM__WATERMARK__IDLE.*not a duration"):
        load_settings()
    monkeypatch.delenv("HS_STREAM__WATERMARK__IDLE")
    monkeypatch.setenv("HS_STREAM__WATERMRK__IDLE", "1s")
    with pytest.raises(ConfigurationError, match=r"HS_STREAM__WATERMRK__IDLE.*watermark"):
        load_settings()


def test_no_secret_is_shown() -> None:
    settings = load_settings(write("[mqtt]\nurl = 'mqtt://u:hunter2@h'\n[store]\nurl = 'mongodb://u:hunter2@h/x'\n"))
    assert "hunter2" not in f"{settings!r} {settings}"
    assert "mqtt://u:***@h" in repr(settings)
    assert settings.mqtt.url == "mqtt://u:hunter2@h"


def test_other_machines_need_a_token() -> None:
    assert load_settings(write("[http]\nhost = '::1'\n")).http.loopback
    assert load_settings(write("[http]\nhost = 'localhost'\n")).http.loopback
    assert not load_settings(write("[http]\nhost = '0.0.0.0'\ntoken_file = 't'\n")).http.loopback


def test_a_secret_is_the_first_line_of_its_file() -> None:
    assert read_secret(str(write("abc\nrest\n", "secret")), "http.token_file") == "abc"
    with pytest.raises(ConfigurationError, match=r"http\.token_file.*is empty"):
        read_secret(str(write("\n", "empty")), "http.token_file")
    with pytest.raises(ConfigurationError, match=r"http\.token_file: cannot read nowhere"):
        read_secret("nowhere", "http.token_file")


@pytest.mark.parametrize(
    ("variable", "value", "words"),
    [
        ("HS_STREAM__HTTP__HOST", "nonsense", "http.host = 'nonsense' lets other machines in"),
        ("HS_STREAM__HTTP__PORT", "99999", "http.port: Input should be less than or equal to 65535"),
        ("hs_stream__http__port", "99999", "http.port: Input should be less than or equal to 65535"),
        ("HS_STREAM__HTTP", '{"port": 99999}', "http.port: Input should be less than or equal to 65535"),
        ("HS_STREAM__HTTP", '{"host": "nonsense"}', "http.host = 'nonsense' lets other machines in"),
        ("HS_STREAM__HTTP", '{"prt": 1}', "http.prt: there is no such key"),
        ("HS_STREAM__HTTP", "7", "http: this is a section"),
        ("HS_STREAM__HTTP__PORT__X", "1", "http.port: Input should be a valid integer"),
        ("HS_STREAM__HTTP__VIEWER", "perhaps", "http.viewer: "),
        ("HS_STREAM__HTTP__CERT_FILE", "x.pem", "http: TLS needs both"),
        ("HS_STREAM__LOGGING__LEVELS", '{"x": "loud"}', "logging.levels.x: write one of"),
        ("HS_STREAM__LOGGING__LEVELS__X", "loud", "logging.levels.x: write one of"),
    ],
)
def test_a_mistake_in_the_environment_names_the_variable_and_not_the_file(
    variable: str, value: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = '[http]\nhost = "127.0.0.1"\nport = 8080\nviewer = true\n[logging.levels]\nx = "info"\n'
    assert load_settings(write(text)).http.port == 8080
    monkeypatch.setenv(variable, value)
    assert failure(text).startswith(f"the environment variable {variable}: {words}")


@pytest.mark.parametrize("variable", ["HS_STREAM__HTTP", "HS_STREAM__LOGGING__LEVELS"])
def test_a_section_that_is_no_json_names_the_variable(variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HS_STREAM__HTTP__PORT", "8080")
    monkeypatch.setenv(variable, "loud")
    with pytest.raises(ConfigurationError, match=rf"variable {variable} is not JSON.* set {variable}__KEY for each"):
        load_settings()


def test_a_mistake_of_the_file_is_not_blamed_on_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HS_STREAM__HTTP__PORT", "8080")
    monkeypatch.setenv("HS_STREAM__STORE", '{"data_dir": "x"}')
    assert failure('[http]\nhost = "nonsense"\n').startswith("hs.toml:2: http.host")
    assert failure('[http]\ncert_file = "x"\n').startswith("hs.toml:1: http: TLS needs both")
    assert failure('[store]\nurl = "x"\n').startswith("hs.toml:2: store.url")
