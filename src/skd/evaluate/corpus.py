"""Summaries by ROUGE (rouge-score) and translations by BLEU and chrF (sacrebleu), with their signatures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from typing import Any

import numpy as np

from skd.data.rows import Row
from skd.evaluate.scores import Finding, Score, mean_score
from skd.evaluate.statistics import bootstrap_sums

__all__ = ["Rouge", "Translation"]

_ROUGE = {"rougeL": "rouge_l", "rouge1": "rouge_1", "rouge2": "rouge_2"}


@dataclass(frozen=True)
class Rouge:
    """F1 of ROUGE-L, ROUGE-1 and ROUGE-2 without stemming, averaged over summaries (Lin, 2004)."""

    packages: tuple[str, ...] = ("rouge-score",)

    def judge(self, row: Row, response: str) -> Finding:
        found = _rouge_scorer().score(row.response or "", response)
        return {name: float(found[kind].fmeasure) for kind, name in _ROUGE.items()}

    def scores(self, rows: Sequence[Row], responses: Sequence[str], findings: Sequence[Finding]) -> dict[str, Score]:
        signature = f"f1|stemmer:no|rouge-score:{version('rouge-score')}"
        return {
            name: mean_score([float(finding[name]) for finding in findings], signature=signature)
            for name in _ROUGE.values()
        }

    def counts(self, findings: Sequence[Finding]) -> dict[str, int]:
        return {}


@cache
def _rouge_scorer() -> Any:
    from rouge_score.rouge_scorer import RougeScorer

    return RougeScorer(list(_ROUGE), use_stemmer=False)


@dataclass(frozen=True)
class Translation:
    """BLEU (Papineni et al., 2002) and chrF (Popović, 2015) over the corpus; empty translations count."""

    packages: tuple[str, ...] = ("sacrebleu",)

    def judge(self, row: Row, response: str) -> Finding:
        return {"chrf": float(_sacrebleu()["chrf"].sentence_score(response, [row.response or ""]).score)}

    def scores(self, rows: Sequence[Row], responses: Sequence[str], findings: Sequence[Finding]) -> dict[str, Score]:
        references = [row.response or "" for row in rows]
        return {name: _corpus_score(metric, responses, references) for name, metric in _sacrebleu().items()}

    def counts(self, findings: Sequence[Finding]) -> dict[str, int]:
        return {}


@cache
def _sacrebleu() -> dict[str, Any]:
    from sacrebleu.metrics.bleu import BLEU
    from sacrebleu.metrics.chrf import CHRF

    return {"bleu": BLEU(), "chrf": CHRF()}


def _corpus_score(metric: Any, responses: Sequence[str], references: Sequence[str]) -> Score:
    if len(responses) != len(references):
        raise ValueError(f"{len(responses)} responses and {len(references)} references")
    found = metric.corpus_score(list(responses), [list(references)])
    # sacrebleu's own bootstrap (2.6.0) raises where a resample scores exactly 0; from the same statistics it is short.
    statistics = np.array(metric._extract_corpus_statistics(list(responses), [list(references)]), dtype=np.float64)
    interval = bootstrap_sums(statistics, lambda sums: float(metric._compute_score_from_stats(sums.tolist()).score))
    signature = str(metric.get_signature())
    return Score(float(found.score), interval, len(responses), "bootstrap over items", False, signature)
