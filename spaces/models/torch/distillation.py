"""Knowledge distillation on outputs: needs no labels.

Of logits by Hinton et al. 2015 (arXiv 1503.02531, section 2); of other outputs by the mean of squared differences, as in
Saputra et al. 2019 (arXiv 1908.00858, eq. 5) for regression.
"""

import math

from torch import Tensor
from torch.nn import functional

_LEAST_VARIANCE = 1e-12


def distillation_loss(
    outputs: Tensor, teacher_outputs: Tensor, temperature: float, class_axis: int | None = 1
) -> Tensor:
    """Returns `T^2 * KL(softmax(teacher / T) || softmax(student / T))`, mean over examples and positions; a scalar, in nats.

    The factor T^2 keeps gradients as large as those of hard targets, whatever the temperature.

    Args:
        outputs: Outputs of the student, `(b, n_classes, ...)` logits.
        teacher_outputs: Outputs of the teacher, of the same shape; no gradient flows to them.
        temperature: T, above 0; 1 does not change the distributions.
        class_axis: The axis of the classes; None if outputs are no logits: the loss is the mean of their squared differences,
            in units of the teacher's variance.
    """
    if class_axis is None:
        target = teacher_outputs.detach()
        return ((outputs - target) ** 2).mean() / target.var(correction=0).clamp(min=_LEAST_VARIANCE)
    student = functional.log_softmax(outputs / temperature, dim=class_axis)
    teacher = functional.log_softmax(teacher_outputs.detach() / temperature, dim=class_axis)
    divergence = functional.kl_div(student, teacher, reduction="none", log_target=True).sum(class_axis)
    return math.pow(temperature, 2) * divergence.mean()
