"""The sixteen ways in which a tier is known to fail, each through the daemon with a good tier behind the bad one."""
