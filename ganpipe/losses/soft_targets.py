"""What a small network minimises to say what a large one says (Hinton 2015, arXiv 1503.02531).

Legend: N samples, K classes. Results are scalars, computed in float32 or wider.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from .adversarial import wide


def soft_cross_entropy(logits_NK: Tensor, teacher_logits_NK: Tensor, temperature: float) -> Tensor:
    """T^2 E[-sum_k p_k log q_k] with p and q the softmax of both logits over the temperature T (section 2): the factor
    keeps gradients as large as with T = 1.

    Args:
        teacher_logits_NK: get no gradient.
    """
    targets_NK = (wide(teacher_logits_NK).detach() / temperature).softmax(1)
    log_probabilities_NK = (wide(logits_NK) / temperature).log_softmax(1)
    return -(temperature**2) * (targets_NK * log_probabilities_NK).sum(1).mean()


def soft_divergence(logits_NK: Tensor, teacher_logits_NK: Tensor, temperature: float) -> Tensor:
    """T^2 E[KL(p || q)]: the cross-entropy less the teacher's own entropy. The same gradient, and zero where both say
    the same."""
    targets_NK = (wide(teacher_logits_NK).detach() / temperature).log_softmax(1)
    log_probabilities_NK = (wide(logits_NK) / temperature).log_softmax(1)
    return temperature**2 * F.kl_div(log_probabilities_NK, targets_NK, reduction="batchmean", log_target=True)
