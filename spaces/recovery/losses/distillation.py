"""Knowledge distillation on logits (Hinton et al. 2015, arXiv 1503.02531, section 2): needs no labels."""

import math

from torch import Tensor
from torch.nn import functional


def distillation_loss(outputs: Tensor, teacher_outputs: Tensor, temperature: float) -> Tensor:
    """Returns `T^2 * KL(softmax(teacher / T) || softmax(student / T))`, mean over examples; a scalar, in nats.

    The factor T^2 keeps gradients as large as those of hard targets, whatever the temperature.

    Args:
        outputs: Logits of the student `(b, n_classes)`.
        teacher_outputs: Logits of the teacher `(b, n_classes)`; no gradient flows to them.
        temperature: T, above 0; 1 does not change the distributions.
    """
    student = functional.log_softmax(outputs / temperature, dim=1)
    teacher = functional.log_softmax(teacher_outputs.detach() / temperature, dim=1)
    divergence = functional.kl_div(student, teacher, reduction="batchmean", log_target=True)
    return math.pow(temperature, 2) * divergence
