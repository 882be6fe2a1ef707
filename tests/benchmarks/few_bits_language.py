"""Perplexity of stories15M with few bits, by rounding, from the same float network and the same calibration texts.

Run from the root of the repository::

    python tests/benchmarks/few_bits_language.py --data DATA --bits 4 3 --roundings nearest gptq --texts 512

Weights of the blocks' linear layers in integers of one width with a float32 scale for each output channel, activations in 16 bits; the embedding, which is the
output layer, too, stays float. Calibration: texts of the training file that are neither in the test split (the 65 stories of `task/data=tinystories`)
nor in the 100 of the validation split. Intervals are 95 % of the paired difference of the log-likelihood per token to the float network, over texts.
"""

import argparse
import itertools
import logging
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from evaluators.runtime import open_session
from evaluators.task.data.text.stories import Stories
from evaluators.task.tasks.text import TextTask
from spaces.models.base import LoadContext
from spaces.models.export import ExportStage
from spaces.models.zoo.language.llama import LlamaModel
from spaces.quantization.quantize import QuantizeStage
from spaces.stages.artifact import Artifact, Split
from spaces.stages.cache import Cache
from spaces.stages.stage import StageContext
from spaces.task_losses import IGNORED

TEST = {"tinystories_train_first2MiB.txt": 60, "tinystories_valid_sample_3.8kB.txt": 5}
DIGEST = "7404c05bc8ed2a59"
BATCH = 5


def likelihoods(artifact: Artifact, split: Split) -> tuple[np.ndarray, np.ndarray]:
    """Returns the sum of the log-likelihoods of each text's tokens, and their number, each `(n_texts,)`."""
    session, sums, counts = open_session(artifact.onnx_bytes, 1), [], []
    for ids, labels in split.batches(BATCH, len(split)):
        (logits,) = session.run(None, {artifact.input.name: ids})
        top = logits.max(2)
        total = top + np.log(np.exp(logits - top[:, :, None]).sum(2))
        chosen = np.take_along_axis(logits, labels.clip(0)[:, :, None], 2)[:, :, 0] - total
        sums.append(np.where(labels == IGNORED, 0, chosen).sum(1))
        counts.append((labels != IGNORED).sum(1))
    return np.concatenate(sums), np.concatenate(counts)


def rows(arguments: argparse.Namespace) -> Iterator[str]:
    """Yields a line for each width and rounding."""
    folder = Path(arguments.data) / "language"
    data = Stories(str(folder / "tokenizer.bin"), test=TEST, test_digest=DIGEST)
    task = TextTask(data, root=str(folder), calibration=arguments.texts, validation=100, test=65)
    splits = task.splits()
    test = splits.test.examples  # type: ignore[attr-defined]  # whole windows, not text by text
    model = LlamaModel(str(folder / "stories15M.bin")).load(LoadContext(None, Path("unused")))
    start = ExportStage().apply(model, {}, StageContext(None, Cache()))
    of_float, n = likelihoods(start, test)
    yield f"float: perplexity {np.exp(-of_float.sum() / n.sum()):.3f} of {len(n)} texts, {n.sum()} tokens"
    for bits, rounding, seed in itertools.product(arguments.bits, arguments.roundings, arguments.seeds):
        values = {
            "weight_bits": bits, "activation_bits": 16, "rounding": rounding, "scheme": arguments.scheme, "clipping": "mse",
            "calibration_images": arguments.texts, "network_steps": arguments.network_steps,
        }  # fmt: skip
        stage = QuantizeStage()
        context = StageContext(
            splits.calibration, Cache(), seed, accelerator=arguments.accelerator, loss=task.loss
        )
        began = time.perf_counter()
        made = stage.apply(start, stage.defaults() | values, context)
        seconds = time.perf_counter() - began
        found, _ = likelihoods(made, test)
        lost = (of_float - found) / n  # nats a token, by text
        mean = (of_float - found).sum() / n.sum()
        half = 1.96 * np.sqrt(np.sum((n * (lost - mean)) ** 2)) / n.sum()
        yield (
            f"{bits} bits {arguments.scheme} {rounding:8} {arguments.texts} texts, seed {seed}: perplexity {np.exp(-found.sum() / n.sum()):.3f}, "
            f"{mean:.4f} +- {half:.4f} nats a token above float, {seconds:.0f} s"
        )


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--data", required=True)
    parser.add_argument("--bits", type=int, nargs="+", default=[4])
    parser.add_argument("--roundings", nargs="+", default=["gptq"])
    parser.add_argument("--scheme", default="symmetric")
    parser.add_argument("--texts", type=int, default=512)
    parser.add_argument("--network-steps", type=int, default=0)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--accelerator", default="cpu")
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    for row in rows(parser.parse_args()):
        print(row, flush=True)


if __name__ == "__main__":
    main()
