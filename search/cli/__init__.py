import time

BEGAN = time.monotonic()
"""When the command was started, before it imported anything large."""
