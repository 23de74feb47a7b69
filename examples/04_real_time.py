# %% [markdown]
# # A stream in real time
#
# Readings come over MQTT, the service computes a mean and publishes it, and a notebook looks at what is stored. It
# takes an MQTT broker: `apt-get install mosquitto` starts one at `mqtt://localhost:1883`, `HS_STREAM__MQTT__URL` names
# another.

# %%
import atexit
import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from urllib.parse import urlsplit

from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion

from hs_stream import HyperStream

broker = os.environ.get("HS_STREAM__MQTT__URL", "mqtt://localhost:1883")
folder = tempfile.TemporaryDirectory()
store = f"sqlite:///{Path(folder.name) / 'kitchen.db'}"

# %% [markdown]
# ## Somebody who listens
#
# Results will come at `tutorial-out/<workflow>/<node>/<room>`; `tutorial-out/status` says whether the service is there.

# %%
received: queue.Queue[tuple[str, bytes]] = queue.Queue()
client = Client(CallbackAPIVersion.VERSION2)
client.on_message = lambda _client, _data, message: received.put((message.topic, bytes(message.payload)))
client.connect(urlsplit(broker).hostname or "localhost", urlsplit(broker).port or 1883)
client.subscribe("tutorial-out/#", qos=1)
client.loop_start()

# %% [markdown]
# ## The service
#
# A workflow in a file: `{room}` in the topic binds a plate, so every room has streams of its own. And settings: where
# the store and the broker are. Variables such as `HS_STREAM__STORE__URL` would win over them and lead to your own
# store, so the service gets none of them. However this ends, the service ends with it.

# %%
WORKFLOW = """
workflow: kitchens
online: true
plates:
  room: {}
sources:
  sensor: {mqtt: "tutorial/{room}/temperature", time: {field: ts, unit: ms}, fields: [celsius]}
nodes:
  celsius: {tool: component, from: sensor, with: {key: celsius}}
  mean: {tool: sliding_mean, from: celsius, with: {width: 1m}}
publish:
  mean: {}
"""
SETTINGS = f"""
workflows = ["{folder.name}/kitchens.yaml"]
[store]
url = "{store}"
[mqtt]
url = "{broker}"
prefix = "tutorial-out"
client_id = "hs-stream-tutorial"
[http]
port = 0
"""
(Path(folder.name) / "kitchens.yaml").write_text(WORKFLOW, encoding="utf-8")
(Path(folder.name) / "settings.toml").write_text(SETTINGS, encoding="utf-8")
log = (Path(folder.name) / "log").open("w", encoding="utf-8")
command = [sys.executable, "-m", "hs_stream.cli", "serve", "--config", f"{folder.name}/settings.toml"]
environment = {name: value for name, value in os.environ.items() if not name.upper().startswith("HS_STREAM")}
service = subprocess.Popen(command, env=environment, stderr=log, stdout=log)


@atexit.register
def end() -> None:
    """The service does not outlive this; where it has ended in order, nothing is left to do."""
    service.kill()
    service.wait()


for number in (signal.SIGTERM, signal.SIGHUP):  # by them Python would end without calling `end`
    signal.signal(number, lambda received_number, _frame: sys.exit(128 + received_number))

# %% [markdown]
# ## A sensor

# %%
while received.get(timeout=30) != ("tutorial-out/status", b"online"):
    pass
print("The service is online.")

# %%
start = time.time_ns() // 1_000_000 - 600_000


def publish(second: int, celsius: float) -> None:
    """What a sensor in the kitchen measured so many seconds after ``start``."""
    payload = json.dumps({"ts": start + second * 1000, "celsius": celsius})
    client.publish("tutorial/kitchen/temperature", payload, qos=1)


def result() -> str:
    """The next result."""
    topic, payload = received.get(timeout=30)
    message = json.loads(payload)
    return f"{topic} +{(message['time'] - start) // 1000} s: {message['value']} ({message['kind']})"


for second, celsius in ((10, 20.0), (20, 21.0), (30, 22.0)):
    publish(second, celsius)
    print(result())

# %% [markdown]
# ## Late
#
# A reading that comes late changes the results that rest on it, and says so: its own mean is inserted, those after it
# are revised.

# %%
publish(15, 30.0)
for _ in range(3):
    print(result())

# %% [markdown]
# ## Looking
#
# While the service runs, the store is its own; `read_only=True` looks at it.

# %%
with HyperStream(store, read_only=True) as hs:
    mean = hs.find_stream("mean", room="kitchen")
    print([value for _, value in mean.window()])

# %% [markdown]
# At the end the service stops in order: it takes no more readings, and stores what it has.

# %%
service.terminate()
print("The service ended with", service.wait(timeout=30))
client.loop_stop()
client.disconnect()
log.close()
folder.cleanup()
