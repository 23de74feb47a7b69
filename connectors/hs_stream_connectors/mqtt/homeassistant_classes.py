"""The words that Home Assistant knows for what an entity measures: unknown ones make it refuse the entity.

From its sources: ``SensorDeviceClass`` and ``SensorStateClass`` in ``homeassistant/components/sensor/const.py``,
``BinarySensorDeviceClass`` in ``homeassistant/components/binary_sensor/__init__.py``
(https://github.com/home-assistant/core), and the newest from https://developers.home-assistant.io/docs/core/entity/sensor.
A class that is newer than this list is added here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

__all__ = ["DEVICE_CLASSES", "STATE_CLASSES"]

STATE_CLASSES: Final = ("measurement", "total", "total_increasing", "measurement_angle")

_SENSOR: Final = """
    absolute_humidity apparent_power aqi area atmospheric_pressure battery blood_glucose_concentration carbon_dioxide
    carbon_monoxide conductivity current data_rate data_size date distance duration energy energy_distance
    energy_storage enum frequency gas humidity illuminance irradiance moisture monetary nitrogen_dioxide
    nitrogen_monoxide nitrous_oxide ozone ph pm1 pm10 pm25 pm4 power power_factor precipitation precipitation_intensity
    pressure radon reactive_energy reactive_power signal_strength sound_pressure speed sulphur_dioxide temperature
    temperature_delta timestamp uptime volatile_organic_compounds volatile_organic_compounds_parts voltage volume
    volume_flow_rate volume_storage water weight wind_direction wind_speed
"""
_BINARY_SENSOR: Final = """
    battery battery_charging carbon_monoxide cold connectivity door garage_door gas heat light lock moisture motion
    moving occupancy opening plug power presence problem running safety smoke sound tamper update vibration window
"""

DEVICE_CLASSES: Final[Mapping[str, tuple[str, ...]]] = {
    "sensor": tuple(_SENSOR.split()),
    "binary_sensor": tuple(_BINARY_SENSOR.split()),
}
"""By component."""
