"""Watches every socket of the daemon while private questions meet every failure: tools/privacy_watch."""
