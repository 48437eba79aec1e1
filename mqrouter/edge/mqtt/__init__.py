"""The link to the broker: paho-mqtt on the daemon's own event loop."""
