"""The daemon's HTTP: on a unix socket for the commands on this machine, and over TCP for people and scripts."""
