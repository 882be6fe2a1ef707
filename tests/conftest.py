"""What holds for every test."""

from hypothesis import settings

# no deadline: the machines are noisy; the same examples every time: a failure must be the change's own
settings.register_profile("paredown", deadline=None, derandomize=True)
settings.load_profile("paredown")
