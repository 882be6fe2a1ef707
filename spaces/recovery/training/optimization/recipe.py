"""The hyperparameters of a training."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Recipe:
    """The hyperparameters. With the network, loss, split and seed they determine the result.

    Attributes:
        epochs: Passes over the split, at least 1.
        batch_size: Examples per step; at least 2 for a network with BatchNorm.
        optimizer: See `optimizers.py`: `sgd` (with Nesterov momentum), `adam`, `adamw`.
        learning_rate: Peak learning rate; None for the result of a range test: see `range_test.py`.
        momentum: Momentum of `sgd`; the first beta of the others.
        weight_decay: Applies to parameters with two axes or more; never to biases and BatchNorm.
        schedule: See `schedules.py`: `one_cycle`, `cosine`, `linear`, `constant`.
        augmentation: See `augmentation.py`; `none` leaves inputs as they are.
        settles_batch_norm: Whether BatchNorm statistics are recomputed with the final weights of every epoch:
            see `settling.py`.
        average_decay: Decay of the moving average of the weights that is kept in the end; 0 keeps the last weights: see
            `averaging.py`.
        stored_activation_bits: Bits in which activations are kept for the backward pass, 2, 4, 8 or 32 (as they are):
            see `stored_activations.py`.
        threads: Number of torch's threads, which determines the order of summation.
        cuda_graphs: Whether a GPU records the network's passes and repeats them: see `graphed.py`.
    """

    epochs: int
    batch_size: int = 64
    optimizer: str = "sgd"
    learning_rate: float | None = 0.03
    momentum: float = 0.9
    weight_decay: float = 5e-4
    schedule: str = "one_cycle"
    augmentation: str = "none"
    settles_batch_norm: bool = True
    average_decay: float = 0.0
    stored_activation_bits: int = 32
    threads: int = 2
    cuda_graphs: bool = False
