"""How to train."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Recipe:
    """How to train. Together with the network, the loss, the split and the seed it decides the result.

    Attributes:
        epochs: Passes over the split, at least 1.
        batch_size: Examples a step, at least 2.
        optimizer: See `optimizers.py`: `sgd` (with Nesterov's momentum), `adam`, `adamw`.
        learning_rate: Its peak.
        momentum: Of `sgd`; the first beta of the others.
        weight_decay: On parameters with two axes or more; never on biases and BatchNorm.
        schedule: See `schedules.py`: `one_cycle`, `cosine`, `linear`, `constant`.
        augmentation: See `augmentation.py`; `none` leaves inputs as they are.
        settles_batch_norm: Whether BatchNorm gets, at the end of every epoch, the statistics of the weights as they are
            then: see `settling.py`.
        threads: Threads that torch computes with; another number adds up sums in another order.
    """

    epochs: int
    batch_size: int = 64
    optimizer: str = "sgd"
    learning_rate: float = 0.03
    momentum: float = 0.9
    weight_decay: float = 5e-4
    schedule: str = "one_cycle"
    augmentation: str = "none"
    settles_batch_norm: bool = True
    threads: int = 2
