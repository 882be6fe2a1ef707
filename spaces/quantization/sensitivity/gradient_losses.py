"""Sensitivities by gradients of the training loss, for torch networks: all layers and widths from one pass over the examples.

fisher: `mean_n sum_i (g_ni e_i)^2` with the gradient `g_n` of example n and the error `e` of the quantized weight, the diagonal
of the empirical Fisher matrix (Taylor scores of Molchanov et al., arXiv 1906.10771, equation 8, for `e` instead of `-w`).

hessian: `trace(H) / n_weights * |e|^2` with Hutchinson's estimate of the trace (HAWQ-V2, arXiv 1911.03852, equations 8 and 10).
"""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from spaces.errors import StageError
from spaces.stages.artifact import Artifact, Split
from spaces.stages.torch_outputs import judged_output
from spaces.task_losses import TaskLoss, task_loss

if TYPE_CHECKING:
    from torch import Tensor

N_PROBES = 8  # random vectors of Hutchinson's estimate
BATCH_SIZE = 32
FOLDED_WITHIN = 1e-3  # relative difference of a weight from the folded one, besides the scale of each channel

Errors = Mapping[tuple[str, int], NDArray[np.float32]]
"""Layer and width in bits to the error of the exported weight."""


class Gradients:
    """Gradients of the training loss with respect to the weights of an exported network.

    The exported weight may have a batch normalisation folded into it: then it is the parameter times a scale for each output
    channel, and its gradient is the parameter's divided by that scale.

    Args:
        artifact: The torch network.
        weights: Layer to the exported float weight; layers are named by their parameters.
        axes: Layer to the axis of the exported weight that runs over output channels.
        split: The examples with labels.
        n_examples: How many of them.
        loss: Name of the training loss.

    Raises:
        StageError: A layer is no parameter of the network, has other values, or labels do not suit the loss.
    """

    def __init__(
        self,
        artifact: Artifact,
        weights: Mapping[str, NDArray[np.float32]],
        axes: Mapping[str, int],
        split: Split,
        n_examples: int,
        loss: str | None,
    ) -> None:
        import torch

        found = task_loss(loss)
        if found is None:
            raise StageError(
                "allocator.sensitivity: gradients need labels, and the task has none; use kl, sqnr or mse"
            )
        assert isinstance(artifact.model, torch.nn.Module)
        self._artifact, self._module, self._loss = artifact, artifact.model, found
        self._split, self._n_examples, self._weights = split, n_examples, weights
        self._parameters = {name: p.detach() for name, p in self._module.named_parameters()}
        self._layouts = {name: self._layout(name, weight, axes[name]) for name, weight in weights.items()}

    def fisher(self, errors: Errors) -> dict[tuple[str, int], float]:
        """Returns the loss of each layer and width.

        Args:
            errors: The errors.
        """
        squares = {name: np.zeros(weight.shape) for name, weight in self._weights.items()}
        n = 0
        for inputs, labels in self._batches(1):
            for name, gradient in self._exported(self._gradients(inputs, labels)).items():
                squares[name] += np.square(gradient)
            n += 1
        return {
            key: float(np.sum(squares[key[0]] * np.square(e.astype(np.float64)))) / n
            for key, e in errors.items()
        }

    def hessian(self, errors: Errors, seed: int) -> dict[tuple[str, int], float]:
        """Returns the loss of each layer and width; negative traces count as 0.

        Args:
            errors: The errors.
            seed: Seed of the random vectors.
        """
        rng, names = np.random.default_rng(seed), list(self._weights)
        traces = dict.fromkeys(names, 0.0)
        n = 0
        for inputs, labels in self._batches(BATCH_SIZE):
            gradients = self._gradients(inputs, labels, create_graph=True)
            for _ in range(N_PROBES):
                for name, part in self._probed(gradients, rng).items():
                    traces[name] += part * len(labels) / N_PROBES
            n += len(labels)
        sizes = {name: self._weights[name].size for name in names}
        return {
            (name, width): max(traces[name], 0.0)
            / n
            / sizes[name]
            * float(np.sum(np.square(e, dtype=np.float64)))
            for (name, width), e in errors.items()
        }

    def _probed(self, gradients: "Mapping[str, Tensor]", rng: np.random.Generator) -> dict[str, float]:
        """Returns `v^T H v` by layer, in the exported weights, for one random vector of signs."""
        import torch

        signs = {name: rng.choice([-1.0, 1.0], g.shape).astype(np.float32) for name, g in gradients.items()}
        # a vector v of exported weights is v / scale in the network's own parameters
        vectors = [torch.from_numpy((signs[n] / self._layouts[n][0]).astype(np.float32)) for n in gradients]
        parameters = [self._used[n] for n in gradients]
        products = torch.autograd.grad(
            list(gradients.values()),
            parameters,
            vectors,
            retain_graph=True,
            allow_unused=True,
            materialize_grads=True,
        )
        return {n: float((v * p).sum()) for n, v, p in zip(gradients, vectors, products, strict=True)}

    def _gradients(
        self, inputs: "Tensor", labels: "Tensor", create_graph: bool = False
    ) -> "dict[str, Tensor]":
        """Returns the gradient of the mean loss by layer, in the parameters' shapes."""
        import torch
        from torch.func import functional_call

        self._used = {name: self._parameters[name].clone().requires_grad_() for name in self._weights}
        with torch.enable_grad():
            outputs = functional_call(self._module, {**self._parameters, **self._used}, (inputs,))
            loss = self._loss.each(judged_output(outputs, self._artifact.input.output), labels, 0.0).mean()
            found = torch.autograd.grad(loss, list(self._used.values()), create_graph=create_graph)
        return dict(zip(self._used, found, strict=True))

    def _exported(self, gradients: "Mapping[str, Tensor]") -> dict[str, NDArray[np.float64]]:
        """Returns gradients with respect to the exported weights."""
        found = {}
        for name, gradient in gradients.items():
            scale, transposed = self._layouts[name]
            plain = gradient.numpy().astype(np.float64) / scale
            found[name] = plain.T if transposed else plain
        return found

    def _layout(self, name: str, weight: NDArray[np.float32], axis: int) -> tuple[NDArray[np.float64], bool]:
        """Returns the scale of each output channel, in the parameter's shape or to be broadcast, and whether it is transposed."""
        if name not in self._parameters:
            raise StageError(
                f"allocator.sensitivity: {name} is no parameter of the torch network, so it has no gradient; use kl"
            )
        own = self._parameters[name].numpy().astype(np.float64)
        transposed = own.ndim == 2 and axis == 1
        exported = (weight.T if transposed else weight).astype(np.float64)
        out = 0 if transposed else axis
        if own.shape == exported.shape:
            others = tuple(i for i in range(own.ndim) if i != out)
            squares = (own**2).sum(axis=others, keepdims=True)
            scale = (own * exported).sum(axis=others, keepdims=True) / np.maximum(squares, 1e-30)
            if np.abs(own * scale - exported).max() <= FOLDED_WITHIN * np.abs(exported).max():
                return np.where(scale == 0, np.inf, scale), transposed
        raise StageError(
            f"allocator.sensitivity: the exported weight {name} is not the torch network's up to a scale for each output channel; use kl"
        )

    def _batches(self, size: int) -> "Iterator[tuple[Tensor, Tensor]]":
        import torch

        for inputs, labels in self._split.batches(size, self._n_examples):
            if isinstance(inputs, Mapping):
                raise StageError(
                    "allocator.sensitivity: gradients are computed for networks of one input; use kl, sqnr or mse"
                )
            _check_labels(self._loss, labels)
            yield torch.from_numpy(inputs), torch.from_numpy(labels.astype(self._loss.dtype))


def _check_labels(loss: TaskLoss, labels: NDArray[np.generic]) -> None:
    if not loss.usable(labels):
        raise StageError(
            f"allocator.sensitivity: gradients of {loss.name} need a label for every calibration example; use kl, sqnr or mse"
        )
