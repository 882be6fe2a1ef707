"""The device that torch trains on."""

import torch

from spaces.errors import ConfigError, unknown_name

ACCELERATORS = ("auto", "cpu", "cuda")


def device_of(accelerator: str) -> torch.device:
    """Returns the device to train on.

    Only the CPU guarantees bit-identical results: on an accelerator the order of summation is not fixed.

    Args:
        accelerator: `auto` (an NVIDIA GPU if there is one, else the CPU), `cpu` or `cuda`.

    Raises:
        ConfigError: The accelerator is unknown or not available; the message lists what is.
    """
    if accelerator not in ACCELERATORS:
        raise ConfigError(unknown_name("accelerator", accelerator, ACCELERATORS))
    has_cuda = torch.cuda.is_available()
    if accelerator == "cuda" and not has_cuda:
        built = f"built for CUDA {torch.version.cuda}" if torch.version.cuda else "built for the CPU only"
        raise ConfigError(
            f"accelerator=cuda, but torch finds no GPU here: only the CPU (torch {torch.__version__} is {built}). "
            "Use accelerator=auto or accelerator=cpu"
        )
    return torch.device("cuda" if has_cuda and accelerator != "cpu" else "cpu")
