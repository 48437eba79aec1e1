"""mqrouter: questions over MQTT, answered on the device or carried upstream and never lost."""

__version__ = "0.1.0"
