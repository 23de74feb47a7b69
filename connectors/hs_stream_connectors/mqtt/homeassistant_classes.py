"""The words that Home Assistant knows for what an entity measures: unknown ones make it refuse the entity.

From its sources: ``SensorDeviceClass`` and ``SensorStateClass`` in ``homeassistant/components/sensor/const.py``,
``BinarySensorDeviceClass`` in ``homeassistant/components/binary_sensor/__init__.py``
(https://github.com/home-assistant/core), and the newest from https://developers.home-assistant.io/docs/core/entity/sensor.
A class that is newer than this list is added here. Units and state classes of a class: ``DEVICE_CLASS_UNITS`` and
``DEVICE_CLASS_STATE_CLASSES`` of the same sources, those of several releases together. A class that is in no table here
is not checked.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

__all__ = ["DEVICE_CLASSES", "STATE_CLASSES", "STATE_CLASSES_OF", "UNITS"]

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

_PRESSURE: Final = "Pa hPa kPa mPa bar cbar mbar mmHg inHg inH₂O psi"
_ENERGY: Final = "J kJ MJ GJ mWh Wh kWh MWh GWh TWh cal kcal Mcal Gcal"
_SPEED: Final = "m/s m/min km/h mm/s in/s ft/s mph kn Beaufort"
_RAIN: Final = "mm/h mm/d in/h in/d"
_TEMPERATURE: Final = "°C °F K"
_VOLUME: Final = "L mL gal m³ ft³ CCF MCF"
_AIR: Final = "µg/m³"
_UNITS_OF: Final[Mapping[str, str]] = {
    "absolute_humidity": "g/m³ mg/m³",
    "apparent_power": "mVA VA kVA",
    "aqi": "",
    "area": "m² cm² km² mm² in² ft² yd² mi² ac ha",
    "atmospheric_pressure": _PRESSURE,
    "battery": "%",
    "blood_glucose_concentration": "mg/dL mmol/L",
    "carbon_dioxide": "ppm",
    "carbon_monoxide": "ppm ppb mg/m³ µg/m³",
    "conductivity": "S/cm mS/cm µS/cm",
    "current": "A mA",
    "data_rate": "bit/s kbit/s Mbit/s Gbit/s B/s kB/s MB/s GB/s KiB/s MiB/s GiB/s",
    "data_size": "bit kbit Mbit Gbit B kB MB GB TB PB EB ZB YB KiB MiB GiB TiB PiB EiB ZiB YiB",
    "date": "",
    "distance": "km m cm mm mi nmi yd ft in",
    "duration": "d h min s ms µs",
    "energy": _ENERGY,
    "energy_distance": "kWh/100km Wh/km mi/kWh km/kWh",
    "energy_storage": _ENERGY,
    "enum": "",
    "frequency": "Hz kHz MHz GHz mHz",
    "gas": "L m³ ft³ CCF MCF",
    "humidity": "%",
    "illuminance": "lx",
    "irradiance": "W/m² BTU/(h⋅ft²)",
    "moisture": "%",
    "nitrogen_dioxide": f"{_AIR} ppb ppm",
    "nitrogen_monoxide": f"{_AIR} ppb",
    "nitrous_oxide": _AIR,
    "ozone": f"{_AIR} ppb ppm",
    "ph": "",
    "pm1": _AIR,
    "pm10": _AIR,
    "pm25": _AIR,
    "pm4": _AIR,
    "power": "mW W kW MW GW TW BTU/h",
    "power_factor": "%",
    "precipitation": "mm cm in",
    "precipitation_intensity": _RAIN,
    "pressure": _PRESSURE,
    "reactive_energy": "varh kvarh",
    "reactive_power": "mvar var kvar",
    "signal_strength": "dB dBm",
    "sound_pressure": "dB dBA",
    "speed": f"{_SPEED} {_RAIN}",
    "sulphur_dioxide": f"{_AIR} ppb",
    "temperature": _TEMPERATURE,
    "temperature_delta": _TEMPERATURE,
    "timestamp": "",
    "volatile_organic_compounds": f"{_AIR} mg/m³",
    "volatile_organic_compounds_parts": "ppm ppb",
    "voltage": "V mV µV kV MV",
    "volume": _VOLUME,
    "volume_flow_rate": "m³/h m³/min m³/s L/h L/min L/s mL/s ft³/min gal/h gal/min gal/d",
    "volume_storage": _VOLUME,
    "water": "L gal m³ ft³ CCF MCF",
    "weight": "kg g mg µg oz lb st",
    "wind_direction": "°",
    "wind_speed": _SPEED,
}
UNITS: Final[Mapping[str, tuple[str, ...]]] = {
    name: (*units.split(), *(["fl. oz."] if units is _VOLUME else [])) for name, units in _UNITS_OF.items()
}
"""The units that a sensor of this class may have, with the micro sign U+00B5; none where it has no unit."""

_TOTALS: Final = ("total", "total_increasing")
STATE_CLASSES_OF: Final[Mapping[str, tuple[str, ...]]] = {
    **{
        name: ("measurement",)
        for name in UNITS
        if name not in ("area", "data_size", "distance", "duration", "precipitation", "weight", "wind_direction")
    },
    **dict.fromkeys(("energy", "gas", "reactive_energy", "volume", "water"), _TOTALS),
    **dict.fromkeys(("date", "enum", "timestamp"), ()),
    "monetary": ("total",),
}
"""The state classes that go with a class, where not all do."""
