"""The base of evaluators that let the candidate's decoder write text."""

from functools import cached_property
from typing import TYPE_CHECKING, ClassVar

from evaluators.base import EvaluationContext, Evaluator
from evaluators.cost.language.candidate_decoder import decoder_template, with_layers_of
from spaces.errors import ConfigError
from spaces.stages.artifact import Artifact, Split
from spaces.stages.inputs import Inputs, parts_of

if TYPE_CHECKING:
    import onnx


class DecoderEvaluator(Evaluator):
    """Has the decoder of a checkpoint, the prompts, and the sizes of what is written.

    Args:
        checkpoint: The model's checkpoint, a `.bin` file of llama2.c, which states the sizes.
        prompts: Number of texts.
        prompt_length: Tokens of each that are given.
        n_tokens: Tokens that are written after each.
        threads: onnxruntime's threads within an operator.

    Raises:
        ConfigError: A size is no whole number from 1 on.
    """

    exclusive: ClassVar[bool] = True
    repeatable: ClassVar[bool] = False

    def __init__(
        self, checkpoint: str | None, prompts: int, prompt_length: int, n_tokens: int, threads: int
    ) -> None:
        sizes = {"prompts": prompts, "prompt_length": prompt_length, "n_tokens": n_tokens, "threads": threads}
        check_sizes(self.name, sizes)
        self.checkpoint, self.prompts, self.prompt_length = checkpoint, prompts, prompt_length
        self.n_tokens, self.threads = n_tokens, threads

    def __getstate__(self) -> dict[str, object]:
        return {key: value for key, value in vars(self).items() if key != "_template"}  # not pickled

    def times(self, context: EvaluationContext) -> bool:
        """Whether a device of the study is this machine."""
        return any(device.measured for device in context.devices.values())

    def decoder_of(self, artifact: Artifact) -> bytes:
        """Returns the serialized decoder with an ONNX artifact's layers.

        Raises:
            EvaluationError: It cannot be built.
        """
        return bytes(with_layers_of(artifact.proto(), self._template).SerializeToString())

    def prompts_of(self, split: Split) -> list[list[int]]:
        """Returns the first tokens of the first texts of a split."""
        inputs: Inputs = next(iter(split.batches(self.prompts, self.prompts)))[0]
        (ids,) = parts_of(inputs)
        return [[int(token) for token in text] for text in ids[:, : self.prompt_length]]

    @cached_property
    def _template(self) -> "onnx.ModelProto":
        return decoder_template(self.checkpoint)


def check_sizes(evaluator: str, sizes: dict[str, int]) -> None:
    """Raises ConfigError unless all are whole numbers from 1 on."""
    for name, size in sizes.items():
        if type(size) is not int or size < 1:
            raise ConfigError(f"evaluator.{evaluator}.{name} must be a whole number from 1 on, not {size!r}")
