"""The steady load: readings of 50 rooms over MQTT, raw and derived results stored, one result published per reading."""
