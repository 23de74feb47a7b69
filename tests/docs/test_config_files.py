"""Every file in config/, compose.yaml and the Dockerfile: checked by the program that reads it where that runs here."""

from __future__ import annotations

import itertools
import json
import os
import re
import shutil
import socket
import subprocess
import time
import tomllib
from collections.abc import Callable
from importlib.metadata import requires
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock
from urllib.parse import urlsplit

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from ruamel.yaml import YAML

ROOT = Path(__file__).resolve().parents[2]
CONFIG = ROOT / "config"
PATH = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"])


def program(name: str) -> str:
    found = shutil.which(name, path=PATH)
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


def load_yaml(path: Path) -> Any:
    return YAML(typ="safe").load(path.read_text(encoding="utf-8"))


# --- config/ ---


def check_settings(path: Path, scratch: Path) -> None:
    from hs_stream.service.settings import Settings
    from hs_stream.service.settings_file import load_settings

    assert load_settings(path) == Settings()  # what the file says of defaults is true


def check_workflow(path: Path, scratch: Path) -> None:
    from hs_stream.plugins import default_registry
    from hs_stream.service.settings import Settings
    from hs_stream.service.workflows.file import load_workflow
    from hs_stream.service.workflows.loading import checks_of

    workflow = load_workflow(path, default_registry(), checks_of(Settings()))
    assert workflow.name == path.stem
    assert workflow.sources
    assert any(node.publish is not None for node in workflow.nodes.values())


def check_mosquitto(path: Path, scratch: Path) -> None:
    """It starts with the file, with only its port and its paths replaced, and takes a connection."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    lines = []
    for line in path.read_text(encoding="utf-8").splitlines():
        words = line.split()
        if words[:1] == ["listener"]:
            words = ["listener", str(port), "127.0.0.1"]
        elif words[:1] == ["persistence_location"]:
            words = ["persistence_location", f"{scratch}/"]
        elif words[:1] == ["password_file"]:
            (scratch / "passwords").touch(0o600)
            words = ["password_file", str(scratch / "passwords")]
        lines.append(" ".join(words))
    if os.getuid() == 0:
        lines.append("user root")  # it would give up root for a user that may not write to the directory
    copy = scratch / "mosquitto.conf"
    copy.write_text("\n".join(lines) + "\n", encoding="utf-8")
    broker = subprocess.Popen([program("mosquitto"), "-c", copy], stderr=subprocess.PIPE, text=True)
    try:
        deadline = time.monotonic() + 10
        while broker.poll() is None:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                assert time.monotonic() < deadline
                time.sleep(0.02)
    finally:
        broker.terminate()
        try:
            _, errors = broker.communicate(timeout=10)
        finally:
            broker.kill()
    assert broker.returncode == 0, errors
    assert "Error" not in errors


def check_prometheus(path: Path, scratch: Path) -> None:
    if "compose" in path.parts:  # promtool wants the secret to be there
        secret = scratch / "token"
        secret.write_text("secret\n", encoding="utf-8")
        text = path.read_text(encoding="utf-8").replace("/run/secrets/hs_stream_token", str(secret))
        path = scratch / "prometheus.yml"
        path.write_text(text, encoding="utf-8")
        shutil.copy(CONFIG / "prometheus" / "alerts.yml", scratch)  # as compose.yaml mounts it
    result = subprocess.run([program("promtool"), "check", "config", path], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "SUCCESS" in result.stdout + result.stderr


def check_alerts(path: Path, scratch: Path) -> None:
    """promtool plays a day on which all is well, and one on which nothing is."""
    test = (ROOT / "tests" / "docs" / "alerts_test.yml").read_text(encoding="utf-8")
    played = scratch / "alerts_test.yml"
    played.write_text(f"rule_files: [{path}]\n{test}", encoding="utf-8")
    for command in (["check", "rules", str(path)], ["test", "rules", str(played)]):
        result = subprocess.run([program("promtool"), *command], capture_output=True, text=True, check=False)
        assert result.returncode == 0, result.stdout + result.stderr
    check_metrics(path, scratch)


def check_metrics(path: Path, _: Path) -> None:
    """Every metric that it names is one of ours."""
    from hs_stream.engine.engine import EngineStatistics
    from hs_stream.service.metrics import ServiceTelemetry

    telemetry = ServiceTelemetry()
    figures = {"statistics": EngineStatistics(0, 0, 0, 0, 0, 0, 0, 0, 0, 0, True, {}, {}), "mqtt_reconnects": 0}
    telemetry.attach(MagicMock(**{f"{name}.return_value": value for name, value in figures.items()}))
    exposed = telemetry.exposition().decode()
    ours = set(re.findall(r"^# TYPE (\w+) ", exposed, re.MULTILINE))
    named = set(re.findall(r"\bhs_\w+", path.read_text(encoding="utf-8"))) - {"hs_stream"}
    assert {re.sub("_(bucket|sum|count)$", "", name) for name in named} <= ours


def check_unit(path: Path, scratch: Path) -> None:
    """systemd takes it, and judges that it leaves little open."""
    unit = scratch / path.name
    text = path.read_text(encoding="utf-8")
    unit.write_text(text.replace("/opt/hs_stream/bin/hs-stream", program("true")), encoding="utf-8")
    for arguments in (["verify"], ["security", "--offline=true", "--threshold=20"]):
        command = [program("systemd-analyze"), *arguments, str(unit)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, ""), done.stdout


CHECKS: dict[str, Callable[[Path, Path], None]] = {
    "hs-stream.toml": check_settings,
    "hs-stream.service": check_unit,
    "mosquitto.conf": check_mosquitto,
    "compose/mosquitto.conf": check_mosquitto,
    "prometheus.yml": check_prometheus,
    "compose/prometheus.yml": check_prometheus,
    "prometheus/alerts.yml": check_alerts,
    "grafana/hs_stream.json": check_metrics,
    **{str(path.relative_to(CONFIG)): check_workflow for path in sorted((CONFIG / "workflows").rglob("*.yaml"))},
}


@pytest.mark.parametrize("name", sorted(str(path.relative_to(CONFIG)) for path in CONFIG.rglob("*") if path.is_file()))
def test_file(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in [key for key in os.environ if key.startswith("HS_STREAM")]:
        monkeypatch.delenv(variable)
    assert name in CHECKS, f"config/{name} is checked by nothing: add it here"
    CHECKS[name](CONFIG / name, tmp_path)


def test_names_are_global_over_all_workflows() -> None:
    seen: dict[str, Path] = {}
    for path in sorted((CONFIG / "workflows").rglob("*.yaml")):
        document = load_yaml(path)
        for name in [*document["sources"], *document["nodes"]]:
            assert name not in seen, f"{name} is in {path} and {seen[name]}: one service cannot run both"
            seen[name] = path


# --- dependencies ---


def test_the_tested_versions_are_those_that_the_floors_allow() -> None:
    """Of every extra. A floor that excludes a known hole must exclude it from what is installed, too."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pinned = dict(line.split("==") for line in lines if "==" in line)
    tested = {canonicalize_name(name): version for name, version in pinned.items()}
    required = [*project["dependencies"], *itertools.chain(*project["optional-dependencies"].values())]
    wanted = [one for one in map(Requirement, required) if one.name != "hs_stream"]
    assert len(wanted) > 30
    for one in wanted:
        assert one.specifier, f"{one.name} has no floor"
        assert one.specifier.contains(tested[canonicalize_name(one.name)]), one


LOCKS = {"requirements.lock": "viewer", "requirements-build.lock": None}


@pytest.mark.parametrize("name", LOCKS)
def test_a_lock_has_hashes_and_the_tested_versions(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    assert "://" not in text  # no address: whoever installs chooses the index
    lines = [line for line in text.replace("\\\n", " ").splitlines() if not line.startswith("#")]
    assert lines
    for line in lines:
        assert re.fullmatch(r"\S+==\S+(\s+--hash=sha256:[0-9a-f]{64})+", line.strip()), line
    pinned = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines())
    tested = {canonicalize_name(package): version for package, version in pinned.items()}
    locked = dict(line.split()[0].split("==") for line in lines)
    for package, version in locked.items():
        assert tested.get(canonicalize_name(package), version) == version, package


def test_the_lock_of_the_image_is_complete() -> None:
    """With ``--require-hashes`` pip installs nothing that is not in it."""
    lines = (ROOT / "requirements.lock").read_text(encoding="utf-8").splitlines()
    locked = {canonicalize_name(line.split("==")[0]) for line in lines if "==" in line}
    wanted, seen = [("hs_stream", ""), ("hs_stream", "viewer")], set[tuple[str, str]]()
    while wanted:
        package, extra = one = wanted.pop()
        if one in seen:
            continue
        seen.add(one)
        for required in map(Requirement, requires(package) or []):
            if required.marker is None or required.marker.evaluate({"extra": extra}):
                wanted += [(canonicalize_name(required.name), some) for some in ("", *required.extras)]
    missing = {package for package, _ in seen} - {"hs_stream", "hs-stream"} - locked
    assert missing == set()


# --- compose.yaml ---


PASSWORDS = {"MQTT_PASSWORD": "m" * 48, "MONGO_PASSWORD": "n" * 48}


@pytest.fixture(scope="module")
def compose() -> Any:
    """As Compose reads it: with the variables in their places."""
    text = (ROOT / "compose.yaml").read_text(encoding="utf-8")
    read = re.sub(r"(?<!\$)\$\{(\w+)(:\?[^}]+)?\}", lambda match: PASSWORDS[match[1]], text)
    return YAML(typ="safe").load(read.replace("$$", "$"))


def test_compose_begins_with_no_password_missing() -> None:
    """Compose refuses to, and says what to do, where a variable with ``:?`` is not set."""
    text = (ROOT / "compose.yaml").read_text(encoding="utf-8")
    required = dict(re.findall(r"\$\{(\w+):\?([^}]+)\}", text))
    assert set(required) == set(re.findall(r"(?<!\$)\$\{(\w+)", text)) == set(PASSWORDS)
    assert set(required.values()) == {"run scripts/secrets first"}


def test_secrets_are_random_private_and_made_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    for name in ("a", "b"):
        directory = tmp_path / name
        directory.mkdir()
        for _ in range(2):
            done = subprocess.run([ROOT / "scripts" / "secrets"], cwd=directory, capture_output=True, check=True)
            made.append(((directory / ".env").read_text(), (directory / "secrets" / "hs_stream_token").read_text()))
            assert not any(secret.encode() in done.stdout + done.stderr for secret in made[-1])
        assert (directory / ".env").stat().st_mode & 0o777 == 0o600
        assert (directory / "secrets").stat().st_mode & 0o777 == 0o700
    assert made[0] == made[1] != made[2] == made[3]
    values = dict(line.split("=") for line in made[0][0].splitlines())
    assert set(values) == set(PASSWORDS)
    assert len({*values.values(), made[0][1]}) == 3
    assert all(re.fullmatch("[0-9a-f]{48}", value) for value in (*values.values(), made[0][1]))
    ignored = (ROOT / ".gitignore").read_text(encoding="utf-8").splitlines()
    assert {".env", "secrets/"} <= set(ignored)


def test_compose_broker_wants_its_password(compose: Any, tmp_path: Path) -> None:
    """The command and the health check of compose.yaml, with only paths and port replaced."""
    service = compose["services"]["mosquitto"]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    settings = (CONFIG / "compose" / "mosquitto.conf").read_text(encoding="utf-8")
    settings = settings.replace("/mosquitto/data", str(tmp_path)).replace("listener 1883", f"listener {port} 127.0.0.1")
    (tmp_path / "mosquitto.conf").write_text(settings + "user root\n" * (os.getuid() == 0), encoding="utf-8")
    command = [part.replace("/mosquitto/data", str(tmp_path)) for part in service["command"]]
    command = [part.replace("/mosquitto/config", str(tmp_path)).replace("chown", "true") for part in command]
    program("mosquitto"), program("mosquitto_sub")
    environment = service["environment"] | {"PATH": PATH}
    broker = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
    try:
        kind, check = service["healthcheck"]["test"]
        assert kind == "CMD-SHELL"
        check = check.replace("mosquitto_sub", f"mosquitto_sub -p {port}")
        deadline = time.monotonic() + 10
        while subprocess.run(["sh", "-c", check], env=environment, capture_output=True, check=False).returncode:
            assert broker.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
        for user in ([], ["-u", "hs_stream", "-P", "wrong"]):
            sub = ["mosquitto_sub", "-p", str(port), "-t", "#", "-W", "3", *user]
            done = subprocess.run(sub, env=environment, capture_output=True, text=True, check=False)
            assert "not authori" in done.stderr, done
        passwords = tmp_path / "passwords"
        assert passwords.stat().st_mode & 0o777 == 0o600
        assert PASSWORDS["MQTT_PASSWORD"] not in passwords.read_text(encoding="utf-8")
    finally:
        broker.terminate()
        broker.wait(10)


def test_compose_has_the_four_services_each_with_a_health_check(compose: Any) -> None:
    assert set(compose["services"]) == {"mosquitto", "mongo", "hs_stream", "prometheus"}
    dockerfile = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    for name, service in compose["services"].items():
        assert "healthcheck" in service or ("build" in service and "HEALTHCHECK" in dockerfile), name


def test_compose_opens_ports_on_this_machine_only(compose: Any) -> None:
    ports = [port for service in compose["services"].values() for port in service.get("ports", [])]
    assert len(ports) == 4
    assert all(port.startswith("127.0.0.1:") for port in ports)


def test_compose_mounts_exist_and_named_volumes_are_declared(compose: Any) -> None:
    for service in compose["services"].values():
        for mount in service.get("volumes", []):
            source = mount.split(":")[0]
            if source.startswith("."):
                assert (ROOT / source).exists(), source
            else:
                assert source in compose["volumes"], source


def test_compose_settings_of_the_service_are_accepted(compose: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from hs_stream.service.settings_file import load_settings

    environment = compose["services"]["hs_stream"]["environment"]
    for name, value in environment.items():
        monkeypatch.setenv(name, str(value))
    settings = load_settings(CONFIG / "hs-stream.toml")
    assert settings.http.host == "0.0.0.0"
    urls = urlsplit(settings.store.url), urlsplit(settings.mqtt.url)
    assert {url.hostname for url in urls} == {"mongo", "mosquitto"}
    made = compose["services"]["mongo"]["environment"]
    user = (made["MONGO_INITDB_ROOT_USERNAME"], made["MONGO_INITDB_ROOT_PASSWORD"])
    assert (urls[0].username, urls[0].password) == user
    assert (urls[1].username, urls[1].password) == ("hs_stream", PASSWORDS["MQTT_PASSWORD"])
    secret = Path(settings.http.token_file)
    assert secret.parent == Path("/run/secrets")
    assert secret.name in compose["services"]["hs_stream"]["secrets"]
    assert secret.name in compose["secrets"]
    assert compose["secrets"][secret.name]["file"].startswith("./secrets/")
    assert "secrets/" in (ROOT / ".gitignore").read_text(encoding="utf-8").splitlines()


def test_compose_waits_for_what_exists(compose: Any) -> None:
    for service in compose["services"].values():
        assert set(service.get("depends_on", {})) <= set(compose["services"])


# --- Dockerfile ---


def instructions() -> list[tuple[str, str]]:
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    return [(line.split(None, 1)[0], line.split(None, 1)[1].strip()) for line in lines]


def test_dockerfile_runs_as_nobody_special_and_ends_in_exec_form() -> None:
    parts = dict(instructions())  # the last of each kind: that of the final stage
    assert parts["USER"] not in ("root", "0")
    assert json.loads(parts["ENTRYPOINT"]) == ["hs-stream"]
    command = json.loads(parts["CMD"])
    assert command[0] == "serve"
    assert (ROOT / command[-1]).is_file()
    check = json.loads(parts["HEALTHCHECK"].split("CMD", 1)[1])
    assert "/healthz" in check[-1]
    compile(check[-1], "HEALTHCHECK", "exec")


def test_dockerfile_copies_what_exists_and_dockerignore_lets_through() -> None:
    allowed = {
        line[1:] for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines() if line.startswith("!")
    }
    for kind, rest in instructions():
        if kind == "COPY" and not rest.startswith("--from"):
            for source in rest.split()[:-1]:
                assert (ROOT / source).exists(), source
                assert source in allowed, source


def test_dockerfile_holds_no_secret() -> None:
    words = ("password", "token", "secret")
    assert not [
        line for kind, line in instructions() if kind in ("ENV", "ARG") and any(w in line.lower() for w in words)
    ]
