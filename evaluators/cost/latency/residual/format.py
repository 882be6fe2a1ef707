"""Format key and version of residual files."""

FORMAT = "paredown_residual"
VERSION = 1
