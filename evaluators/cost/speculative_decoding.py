"""What a candidate is worth as the draft of the uncompressed network in speculative decoding."""

from collections.abc import Sequence
from time import perf_counter
from typing import ClassVar

from evaluators.base import Evaluation, EvaluationContext, Measurement, Outline, metric_columns
from evaluators.cost.language.decoder_evaluator import DecoderEvaluator, check_sizes
from evaluators.cost.language.generation import Speculated, TextDecoder, greedy, speculative
from evaluators.cost.language.speculative import (
    Speculation,
    SpeculativeMemory,
    SpeculativePlan,
    fastest_plan,
    leanest_plan,
)
from spaces.errors import ConfigError, EvaluationError
from spaces.quantization.formats.stored import simulated_layers
from spaces.quantization.transformers.kv_cache import cache_bits, entry_bytes
from spaces.stages.artifact import Artifact

_BYTES = 4  # of an entry of the cache: the decoders here keep float32


class SpeculativeEvaluator(DecoderEvaluator):
    """Lets the float network write greedy text with the candidate as its draft, and checks that the text is that of plain decoding.

    Yields `draft_acceptance` (share of the drafted tokens that the float network keeps), `same_text` (share of the tokens of plain
    greedy decoding that are written; less than 100 % only where two logits are equal to the last bits), and on devices that are this
    machine `speculative_speedup` (time of plain decoding over that with the draft). For a draft whose step takes `draft_cost` of the
    float network's, the plan with the least memory that keeps a share `keep` of the greatest modelled speed-up gives
    `planned_speedup` and `planned_bytes` (SpecMemo's question, arXiv 2506.01986): see `speculative.leanest_plan`. With `memory_bytes` the
    plan is the fastest one that fits.

    Args:
        checkpoint: The model's checkpoint, a `.bin` file of llama2.c, which states the sizes.
        draft_length: Tokens that the draft proposes before each check.
        draft_cost: Time of a draft step over the float network's on the device that is planned for.
        keep: Share of the greatest speed-up that a plan keeps.
        memory_bytes: Most bytes of both models, their caches and what is checked; None has no limit.
        prompts: Number of texts.
        prompt_length: Tokens of each that are given.
        n_tokens: Tokens that are written after each.
        threads: onnxruntime's threads within an operator.

    Raises:
        ConfigError: An argument is out of range.
    """

    name: ClassVar[str] = "speculative"
    scores_split: ClassVar[bool] = True

    def __init__(
        self,
        checkpoint: str | None,
        draft_length: int = 4,
        draft_cost: float = 0.3,
        keep: float = 0.96,
        memory_bytes: float | None = None,
        prompts: int = 2,
        prompt_length: int = 8,
        n_tokens: int = 64,
        threads: int = 1,
    ) -> None:
        super().__init__(checkpoint, prompts, prompt_length, n_tokens, threads)
        check_sizes("speculative", {"draft_length": draft_length})
        if not 0 <= keep <= 1 or not draft_cost >= 0:
            raise ConfigError(
                f"evaluator.speculative: keep ({keep}) must lie in [0, 1], and draft_cost ({draft_cost}) not be negative"
            )
        if memory_bytes is not None and not memory_bytes > 0:
            raise ConfigError(f"evaluator.speculative.memory_bytes must be above 0, not {memory_bytes}")
        self.draft_length, self.draft_cost, self.keep = draft_length, draft_cost, keep
        self.memory_bytes = memory_bytes

    def columns(self, outline: Outline) -> frozenset[str]:
        """Returns the columns of the plan, and of this machine's speed."""
        of_model = metric_columns(("draft_acceptance", "same_text", "planned_speedup", "planned_bytes"))
        return of_model | outline.costs(("speculative_speedup",), measured=True)

    def evaluate(self, artifact: Artifact, context: EvaluationContext) -> Evaluation:
        """Returns the measurements of one ONNX artifact.

        Raises:
            EvaluationError: A decoder cannot be built or run, or no plan fits the memory.
        """
        models = [self.decoder_of(a) for a in (context.reference.artifact, artifact)]
        target, draft = (TextDecoder(model, self.threads) for model in models)
        prompts = self.prompts_of(context.split)
        began = perf_counter()
        plain = [greedy(target, prompt, self.n_tokens) for prompt in prompts]
        middle = perf_counter()
        written = [speculative(target, draft, p, self.n_tokens, self.draft_length) for p in prompts]
        speed_up = (middle - began) / (perf_counter() - middle)
        acceptance = _acceptance(written)
        plan = self._plan(acceptance, models, target, _entry_bytes(artifact, draft))
        found = [
            Measurement("draft_acceptance", 100 * acceptance, "%", "measured"),
            Measurement("same_text", 100 * _same(plain, written), "%", "measured"),
            Measurement("planned_speedup", plan.speed_up, "x", "modelled"),
            Measurement("planned_bytes", plan.total_bytes, "bytes", "modelled"),
        ]
        if not simulated_layers(artifact.onnx_bytes):
            timed = [name for name, device in context.devices.items() if device.measured]
            found += [Measurement("speculative_speedup", speed_up, "x", "measured", name) for name in timed]
        details = {"draft_length": plan.draft_length, "width": plan.width, "candidates": plan.candidates}
        return Evaluation(tuple(found), {"speculative": {"plan": details}})

    def _plan(
        self, acceptance: float, models: Sequence[bytes], target: TextDecoder, draft_bytes: float
    ) -> SpeculativePlan:
        memory = SpeculativeMemory(
            len(models[0]),
            len(models[1]),
            target.cache_elements * _BYTES,
            target.cache_elements * draft_bytes,
            target.vocabulary_size,
            self.prompt_length + self.n_tokens,
        )
        speculation = Speculation(acceptance, self.draft_cost)
        if self.memory_bytes is None:
            return leanest_plan(speculation, memory, self.keep)
        return fastest_plan(speculation, memory, self.memory_bytes)


def _entry_bytes(artifact: Artifact, decoder: TextDecoder) -> float:
    """Returns the mean bytes of an element of the cache of a candidate's decoder."""
    return entry_bytes(cache_bits(artifact.proto()), decoder.head_dim) / decoder.head_dim


def _acceptance(written: Sequence[Speculated]) -> float:
    """Returns the share of drafted tokens, each judged only if all before it were right, that the target kept."""
    n_drafted = sum(text.n_judged for text in written)
    if not n_drafted:
        raise EvaluationError("evaluator.speculative.n_tokens must be at least 2, or nothing is drafted")
    return sum(text.n_kept for text in written) / n_drafted


def _same(plain: Sequence[list[int]], written: Sequence[Speculated]) -> float:
    pairs = [
        (a, b)
        for one, other in zip(plain, written, strict=True)
        for a, b in zip(one, other.tokens, strict=True)
    ]
    return sum(a == b for a, b in pairs) / len(pairs)
