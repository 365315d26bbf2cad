"""BLEU and chrF by sacrebleu, and exact matches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def bleu(hypotheses: Sequence[str], references: Sequence[str]) -> float:
    """Corpus BLEU, 0 to 100; nan of no sentences."""
    return _score(_bleu(references), hypotheses)


def chrf(hypotheses: Sequence[str], references: Sequence[str]) -> float:
    """Corpus chrF, 0 to 100; nan of no sentences."""
    return _score(_chrf(references), hypotheses)


def exact(hypotheses: Sequence[str], references: Sequence[str]) -> float:
    """Per cent of hypotheses that equal their reference."""
    same = sum(h == r for h, r in zip(hypotheses, references, strict=True))
    return 100 * same / len(references)


def signatures(references: Sequence[str]) -> dict[str, str]:
    """What sacrebleu calls the way these scores were computed."""
    return {"bleu": str(_bleu(references).get_signature()), "chrf": str(_chrf(references).get_signature())}


def _score(metric: Any, hypotheses: Sequence[str]) -> float:
    if not hypotheses:
        return float("nan")  # sacrebleu raises IndexError
    return float(metric.corpus_score(list(hypotheses), None).score)


def _bleu(references: Sequence[str]) -> Any:
    from sacrebleu.metrics.bleu import BLEU

    return BLEU(references=[list(references)])


def _chrf(references: Sequence[str]) -> Any:
    from sacrebleu.metrics.chrf import CHRF

    return CHRF(references=[list(references)])
