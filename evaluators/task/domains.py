"""How a candidate does on texts of other domains than those it was compressed for: specialisation, generalisation, transfer."""

from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from evaluators.base import Evaluation, EvaluationContext, Evaluator, Measurement, Outline, metric_columns
from evaluators.runtime import run_split
from evaluators.task.data.archives import reading
from evaluators.task.data.text.llama_tokenizer import LlamaTokenizer
from evaluators.task.data.text.scored_text import LOG_LIKELIHOOD, ScoredTextSplit
from evaluators.task.data.text.stories import windows
from evaluators.task.metrics.tokens.likelihoods import BitsPerByte
from evaluators.task.statistics.bootstrap import bootstrap_interval, resampled_values
from evaluators.task.statistics.domain_matrix import generality_gap, specialisation_index, transfer_ratio
from spaces.errors import ConfigError, EvaluationError, InputError
from spaces.stages.artifact import Artifact

_SEPARATOR = "<|endoftext|>"
_HOME = "task"  # the domain of the study's own texts


class DomainsEvaluator(Evaluator):
    """Scores texts by `2^(-bits per byte)`, the mean probability of a byte, over that of the uncompressed network.

    The candidate was compressed for the task's texts, its home. In the other domains the uncompressed network stands for one that is at its
    best there. Yields, of the candidate, with intervals by the bootstrap over texts:

    ============================ ===================================================================================
    bits_per_byte_DOMAIN         of each domain
    domain_specialisation        GEM's DSI: share of the score at home that is lost elsewhere
    generality_gap               GG: the same in points
    transfer_ratio               CDTR: score elsewhere, of the scores of the networks that are at their best there
    ============================ ===================================================================================

    The uncompressed network has 0, 0 and 1: see `domain_matrix`.

    Args:
        tokenizer: A `tokenizer.bin` of llama2.c.
        domains: By name a file, a folder, or a pattern such as `lib/*.py`. Files of texts that end with `<|endoftext|>` have
            many, others are one text.
        length: Tokens of a text that count, at most.
        texts: Texts of each domain, at most; those of the task come from the split.
        confidence: Of the intervals, in (0, 1).
        batch_size: Maximum batch size.
        threads: onnxruntime's threads within an operator.

    Raises:
        ConfigError: An argument is out of range, or there is no domain.
        InputError: A file is missing or no text in UTF-8, a pattern matches none, or the tokenizer is none.
    """

    name: ClassVar[str] = "domains"
    scores_split: ClassVar[bool] = True

    def __init__(
        self,
        tokenizer: str,
        domains: Mapping[str, str],
        length: int = 256,
        texts: int = 16,
        confidence: float = 0.95,
        batch_size: int = 16,
        threads: int = 1,
    ) -> None:
        sizes = {"length": length, "texts": texts, "batch_size": batch_size, "threads": threads}
        for name, size in sizes.items():
            if type(size) is not int or size < 1:
                raise ConfigError(f"evaluator.domains.{name} must be a whole number from 1 on, not {size!r}")
        if not domains or _HOME in domains or not all(name.isidentifier() for name in domains):
            raise ConfigError(
                f"evaluator.domains.domains must name at least one domain by an identifier other than {_HOME}, which is the task's own, "
                f"not {sorted(domains)}"
            )
        if not 0 < confidence < 1:
            raise ConfigError(f"evaluator.domains.confidence must lie between 0 and 1, not {confidence}")
        self.length, self.confidence = length, confidence
        self.texts, self.batch_size, self.threads = texts, batch_size, threads
        self._tokenizer = LlamaTokenizer(Path(tokenizer).expanduser())
        self._metric = BitsPerByte(self._tokenizer.byte_counts)
        self._splits = {name: self._read(name, path) for name, path in domains.items()}

    def columns(self, outline: Outline) -> frozenset[str]:
        """Returns the columns of the domains and of the indices."""
        del outline
        by_domain = [f"bits_per_byte_{name}" for name in (_HOME, *self._splits)]
        indices = ("domain_specialisation", "generality_gap", "transfer_ratio")
        return metric_columns([*by_domain, *indices], "_low", "_high")

    def evaluate(self, artifact: Artifact, context: EvaluationContext) -> Evaluation:
        """Returns the scores of one ONNX artifact.

        Raises:
            EvaluationError: The network cannot be run, or does not take windows of `length`; or the task has no texts.
        """
        splits = {_HOME: self._home(context), **self._splits}
        dense, own = (self._bits(model, splits) for model in (context.reference.artifact, artifact))
        scores = np.ones((len(splits), len(splits), dense.shape[1]))
        scores[0] = 2 ** (dense - own)
        found = [
            m
            for name, bits in zip(splits, own, strict=True)
            for m in self._bounded(f"bits_per_byte_{name}", bits, "bits")
        ]
        found += self._bounded("domain_specialisation", 100 * specialisation_index(scores)[0], "%")
        found += self._bounded("generality_gap", 100 * generality_gap(scores)[0], "%")
        found += self._bounded("transfer_ratio", transfer_ratio(scores)[0], "x")
        n_texts = {name: len(split) for name, split in splits.items()}
        return Evaluation(tuple(found), {self.name: {"texts": n_texts}})

    def _home(self, context: EvaluationContext) -> ScoredTextSplit:
        """Returns the first texts of the task's split."""
        if not isinstance(context.split, ScoredTextSplit):
            raise EvaluationError(
                "evaluator=domains compares texts, so that the task must be task=text; leave it out"
            )
        return context.split.subset(np.arange(min(self.texts, len(context.split))))

    def _bits(self, artifact: Artifact, splits: Mapping[str, ScoredTextSplit]) -> NDArray[np.float64]:
        """Returns bits per byte of each domain, and in resamples of its texts, `(n_domains, 1 + n_resamples)`."""
        found = []
        for name, split in splits.items():
            self._check_fit(artifact, split, name)
            outputs, labels = run_split(artifact, split, self.batch_size, self.threads)
            statistics = self._metric.statistics(outputs[LOG_LIKELIHOOD], labels)
            value = self._metric.pooled(statistics, np.ones(len(labels)))
            seed = sorted(splits).index(
                name
            )  # domains are drawn independently of one another, networks alike
            found.append([value, *resampled_values(self._metric, statistics, seed=seed)])
        return np.array(found)

    def _check_fit(self, artifact: Artifact, split: ScoredTextSplit, name: str) -> None:
        """Raises EvaluationError if a network does not take the windows, or has no logit of each token."""
        length = artifact.input.shape[0] if len(artifact.input.shape) == 1 else None
        if length != split.labels.shape[1]:
            raise EvaluationError(
                f"evaluator.domains.length={split.labels.shape[1]} (domain {name}): the network takes inputs of shape {artifact.input.shape}"
            )

    def _bounded(self, name: str, values: NDArray[np.float64], unit: str) -> list[Measurement]:
        """Returns a value and its interval, from the value and those in resamples."""
        interval = bootstrap_interval(float(values[0]), values[1:], self.confidence)
        ends = zip(("_low", "_high"), interval or (), strict=False)
        named = {"": float(values[0]), **dict(ends)}
        return [Measurement(f"{name}{end}", value, unit, "measured") for end, value in named.items()]

    def _read(self, name: str, path: str) -> ScoredTextSplit:
        texts = [*islice((text for file in _files(name, path) for text in _texts(file)), self.texts)]
        if not texts:
            raise InputError(f"evaluator.domains.domains.{name}: {path} has no text")
        return ScoredTextSplit(windows(texts, self._tokenizer, self.length))


def _files(name: str, path: str) -> list[Path]:
    """Returns the files of a domain in the order of their names. Raises InputError if there are none."""
    given = Path(path).expanduser()
    found = given.iterdir() if given.is_dir() else given.parent.glob(given.name)
    files = sorted(file for file in found if file.is_file())
    if not files:
        raise InputError(
            f"evaluator.domains.domains.{name}: {path} is no file, no folder with files, and matches none as a pattern"
        )
    return files


def _texts(file: Path) -> list[str]:
    """Returns the texts of a file: what separators end, or all of it."""
    with reading(file, "a text in UTF-8"):
        content = file.read_text(encoding="utf-8-sig")
    parts = content.split(_SEPARATOR)[:-1] if _SEPARATOR in content else [content]
    return [part.strip() for part in parts if part.strip()]
