"""How fast a candidate writes text on this machine, and what a token costs: timed with a key-value cache."""

from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from time import perf_counter
from typing import ClassVar

from evaluators.base import Evaluation, EvaluationContext, Measurement, Outline
from evaluators.cost.energy.meter import EnergyMeter, rapl_counters
from evaluators.cost.language.candidate_roofline import (
    ModelledRequest,
    decoder_shape,
    modelled_request,
    widths_of,
)
from evaluators.cost.language.decoder_evaluator import DecoderEvaluator
from evaluators.cost.language.generation import TextDecoder, greedy
from evaluators.cost.latency.measured import pinned
from evaluators.cost.summary_metrics import (
    average_latency_s,
    average_power_w,
    inference_throughput,
    joules_per_token,
)
from evaluators.devices.device import Device
from spaces.quantization.formats.stored import simulated_layers, simulated_text
from spaces.stages.artifact import Artifact


class DecodingEvaluator(DecoderEvaluator):
    """Lets the candidate's decoder write greedy text after the beginnings of the split's texts.

    The decoder has the candidate's layers: see `with_layers_of`. Yields for each device that is this machine, in the terms of
    EfficientLLM (arXiv 2505.13840):

    ================== ==========================================================================================
    tokens_per_s       inference throughput (IT): tokens over seconds, prompts included in the time
    request_ms         average latency (AL) of a request: a prompt and all that is written after it
    power_w            average power (AEC) of package and memory, where there are counters (RAPL)
    joules_per_token   energy of a token, where there are counters
    ================== ==========================================================================================

    For other devices `tokens_per_s` and `request_ms`, as modelled by rooflines of the pass over the prompt and of one in the middle of
    what is written, `joules_per_token` at the profile's power, `bytes_per_token` (weights and cache that are read) and `decoder_bytes`
    (all weights and the longest cache), where the profile has the bandwidth. Keys and values count at the candidate's `kv_bits`. What
    only simulates a format is not timed.

    Args:
        checkpoint: The model's checkpoint, a `.bin` file of llama2.c, which states the sizes.
        prompts: Number of texts.
        prompt_length: Tokens of each that are given.
        n_tokens: Tokens that are written after each.
        threads: onnxruntime's threads within an operator.
        root: Folder of Linux's powercap interface.

    Raises:
        ConfigError: An argument is out of range.
    """

    name: ClassVar[str] = "decoding"

    def __init__(
        self,
        checkpoint: str | None,
        prompts: int = 2,
        prompt_length: int = 8,
        n_tokens: int = 64,
        threads: int = 1,
        root: str = "/sys/class/powercap",
    ) -> None:
        super().__init__(checkpoint, prompts, prompt_length, n_tokens, threads)
        self.root = root

    def follows_structure(self, context: EvaluationContext) -> bool:
        """Whether all is modelled: no device of the study is this machine."""
        return not self.times(context)

    def columns(self, outline: Outline) -> frozenset[str]:
        """Returns the columns of this machine, and of the devices that are modelled."""
        everywhere = outline.costs(("tokens_per_s", "request_ms", "joules_per_token"))
        modelled = outline.costs(("bytes_per_token", "decoder_bytes"), measured=False)
        return everywhere | modelled | outline.costs(("power_w",), measured=True)

    def evaluate(self, artifact: Artifact, context: EvaluationContext) -> Evaluation:
        """Returns the timings of one ONNX artifact on this machine, and its modelled speed on other devices.

        Raises:
            EvaluationError: The candidate's decoder cannot be built or run.
        """
        modelled = tuple(self._modelled(artifact, context))
        devices = [name for name, device in context.devices.items() if device.measured]
        if not devices:
            reason = "no device of the study is this machine, or has a bandwidth and a throughput for the candidate"
            return Evaluation(modelled, {} if modelled else {self.name: {"absent_because": reason}})
        if simulated := simulated_layers(artifact.onnx_bytes):
            return Evaluation(modelled, {self.name: {"absent_because": simulated_text(simulated)}})
        model = self.decoder_of(artifact)
        counters, reason = rapl_counters(Path(self.root))
        with pinned(self.threads):
            decoder = TextDecoder(model, self.threads)
            prompts = self.prompts_of(context.split)
            greedy(decoder, prompts[0], 2)  # a warm-up
            meter = EnergyMeter(counters) if counters else None
            with meter or nullcontext():
                seconds = [_seconds(decoder, prompt, self.n_tokens) for prompt in prompts]
        values = [*_figures(seconds, self.n_tokens, meter.joules if meter else 0.0)]
        details = {} if counters else {"decoding": {"power_absent_because": reason}}
        found = (Measurement(n, v, unit, "measured", d) for d in devices for n, v, unit in values)
        return Evaluation((*found, *modelled), details)

    def _modelled(self, artifact: Artifact, context: EvaluationContext) -> Iterator[Measurement]:
        others = [device for device in context.devices.values() if not device.measured]
        if not others:
            return
        proto = artifact.proto()
        shape = decoder_shape(self.checkpoint, proto)
        widths = widths_of(proto, shape)
        is_integer = any(node.op_type == "QuantizeLinear" for node in proto.graph.node)
        for device in others:
            request = modelled_request(shape, widths, device, is_integer, self.prompt_length, self.n_tokens)
            if request is not None:
                for name, value, unit in _modelled_figures(request, device):
                    yield Measurement(name, value, unit, "modelled", device.name)


def _modelled_figures(request: ModelledRequest, device: Device) -> list[tuple[str, float, str]]:
    """Returns names, values and units."""
    one = request.one
    found = [
        ("tokens_per_s", one.tokens_per_s, "1/s"),
        ("request_ms", 1e3 * request.time_s, "ms"),
        ("bytes_per_token", one.weight_bytes + one.cache_bytes, "bytes"),
        ("decoder_bytes", request.memory_bytes, "bytes"),
    ]
    if device.active_power_mw is not None:
        joules = joules_per_token(1e-3 * device.active_power_mw, one.tokens_per_s)
        found.append(("joules_per_token", joules, "J"))
    return found


def _seconds(decoder: TextDecoder, prompt: Sequence[int], n_tokens: int) -> float:
    began = perf_counter()
    greedy(decoder, prompt, n_tokens)
    return perf_counter() - began


def _figures(seconds: Sequence[float], n_tokens: int, joules: float) -> list[tuple[str, float, str]]:
    """Returns names, values and units; joules of 0 are those of counters that are absent or stand still."""
    per_s = inference_throughput([n_tokens] * len(seconds), seconds)
    found = [("tokens_per_s", per_s, "1/s"), ("request_ms", 1e3 * average_latency_s(seconds), "ms")]
    if joules:
        watts = average_power_w(joules, sum(seconds))
        found += [("power_w", watts, "W"), ("joules_per_token", joules_per_token(watts, per_s), "J")]
    return found
