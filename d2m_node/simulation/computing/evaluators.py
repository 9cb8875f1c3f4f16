"""Which exact evaluator a simulation takes. All give the same integers."""

from protocol.evaluation import Evaluator, compute_logits_of_all
from protocol.model import ModelDescription


def choose_evaluator(model: ModelDescription, *, threads: int) -> Evaluator:
    """Choose the fastest for a model on this many cores. Torch is loaded where it is of use."""
    from d2m_node.training.convolution import ConvolutionShape

    if ConvolutionShape.read(model) is None:
        return compute_logits_of_all
    from d2m_node.training.fast_exact import FastEvaluator

    return FastEvaluator(threads)
