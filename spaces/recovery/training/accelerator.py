"""What torch trains on."""

import torch

from spaces.errors import ConfigError, unknown_name

ACCELERATORS = ("auto", "cpu", "cuda")


def device_of(accelerator: str) -> torch.device:
    """Returns the device to train on.

    Only the CPU is promised to give the same bits again: on an accelerator, sums may come out in any order.

    Args:
        accelerator: `auto` (an NVIDIA GPU if there is one, else the CPU), `cpu` or `cuda`.

    Raises:
        ConfigError: There is no such accelerator, or none here; the message says what there is.
    """
    if accelerator not in ACCELERATORS:
        raise ConfigError(unknown_name("accelerator", accelerator, ACCELERATORS))
    found = torch.cuda.is_available()
    if accelerator == "cuda" and not found:
        built = f"built for CUDA {torch.version.cuda}" if torch.version.cuda else "built for the CPU only"
        raise ConfigError(
            f"accelerator=cuda, but torch finds no GPU here: only the CPU (torch {torch.__version__} is {built}). "
            "Use accelerator=auto or accelerator=cpu"
        )
    return torch.device("cuda" if found and accelerator != "cpu" else "cpu")
