"""What each metric finds in a response, and the scores over all of them."""

import math

import pytest

from skd.data import FILE_TASKS
from skd.data.file_tasks import METRICS
from skd.data.rows import Row
from skd.errors import ConfigError
from skd.evaluate import metrics
from skd.evaluate.corpus import Rouge, Translation
from skd.evaluate.grader import Grader
from skd.evaluate.metrics import _BUILDERS, Exact, ItemMean, MathMatch, NumberMatch, metric_of
from skd.evaluate.scores import item_score, mean_score, share_score


def judged(metric, *pairs):
    """Scores and counts for (reference, response) pairs."""
    rows, responses = [Row("p", reference) for reference, _ in pairs], [response for _, response in pairs]
    findings = [metric.judge(row, response) for row, response in zip(rows, responses, strict=True)]
    scores = metric.scores(rows, responses, findings)
    return {name: score.value for name, score in scores.items()}, metric.counts(findings), findings


def test_every_metric_that_tasks_can_name_is_there():
    assert set(_BUILDERS) == set(METRICS)


def test_numbers_after_marks_and_fallbacks_apart():
    scores, counts, findings = judged(
        NumberMatch(),
        ("7 * 2 = 14 #### 14", "so it is 14\n#### 14"),
        ("#### 1,400", "#### 1400.0"),
        ("#### 14", "the answer is 14."),
        ("#### 14", "#### 15"),
        ("9 (apples)", "#### 9"),
        ("#### 14", "no idea"),
    )
    assert scores == {"exact_match": 3 / 6, "exact_match_or_last_number": 4 / 6}
    assert counts == {"without_marks": 2, "no_answer": 1}
    assert [item_score(finding) for finding in findings] == [1, 1, 0, 0, 1, 0]


def test_boxes_and_verdicts():
    scores, counts, findings = judged(
        MathMatch(Grader()),
        (r"so \boxed{\frac{1}{2}}", r"it is \boxed{0.5}"),
        (r"\boxed{\frac{1}{2}}", r"\boxed{\frac{1}{3}}"),
        ("145", r"\boxed{145}"),
        ("5", "the answer is 5"),
        (r"\boxed{\sin(2x)}", r"\boxed{2\sin(x)\cos(x)}"),
    )
    assert scores == {"accuracy": 2 / 5}
    assert counts == {"equal": 2, "different": 2, "no-answer": 1, "undecided_without_math_verify": 1}
    assert findings[0] == {"correct": True, "answer": "0.5", "verdict": "equal", "tier": "value"}


def test_exact_and_a_measure_of_ones_own():
    assert judged(Exact(), ("a b", " a b\n"), ("a", "b"))[0] == {"exact_match": 0.5}
    assert judged(ItemMean(lambda response, reference: len(response) / 4), ("x", "ab"), ("x", "abcd"))[0] == {
        "score": 0.75
    }


def test_rouge_by_hand():
    scores, _, findings = judged(Rouge(), ("the cat sat", "the cat"), ("a b", ""))
    # precision 1, recall 2/3, F1 4/5; of bigrams precision 1, recall 1/2, F1 2/3
    assert findings[0] == pytest.approx({"rouge_l": 0.8, "rouge_1": 0.8, "rouge_2": 2 / 3})
    assert scores == pytest.approx({"rouge_l": 0.4, "rouge_1": 0.4, "rouge_2": 1 / 3})


def test_translations_count_empty_ones_and_carry_signatures():
    rows = [Row("p", "the cat sat on the mat"), Row("q", "hello there my old friend")]
    texts = [row.response or "" for row in rows]
    findings = [Translation().judge(row, text) for row, text in zip(rows, texts, strict=True)]
    perfect = Translation().scores(rows, texts, findings)
    assert {name: round(score.value, 6) for name, score in perfect.items()} == {"bleu": 100.0, "chrf": 100.0}
    half = Translation().scores(rows, [texts[0], ""], findings)
    assert 0 < half["bleu"].value < 100
    assert half["bleu"].interval_95[0] < half["bleu"].value
    assert "tok:13a" in half["bleu"].signature
    assert half["bleu"].interval_95[1] < 100.001
    with pytest.raises(ValueError, match="1 responses and 2 references"):
        Translation().scores(rows, texts[:1], findings)


def test_a_missing_package_is_said_with_the_way_out(monkeypatch):
    monkeypatch.setattr(metrics, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"SKD-E15.*rouge-score, which is not installed; install it: pip install"):
        metric_of(FILE_TASKS["dialogsum"], Grader())
    assert isinstance(metric_of(FILE_TASKS["gsm8k"], Grader()), NumberMatch)


def test_intervals_hold_the_score():
    share = share_score([True] * 30 + [False] * 10)
    assert share.interval_95[0] < 0.75 < share.interval_95[1]
    mean = mean_score([i / 10 for i in range(11)])
    assert mean.interval_95[0] < 0.5 < mean.interval_95[1]
    # The standard error of the mean is 0.1; a normal interval is +- 0.196 * sqrt(10 / 11) / 1.
    assert math.isclose(mean.interval_95[1] - mean.interval_95[0], 2 * 1.96 * math.sqrt(0.1 / 11), rel_tol=0.05)
    nothing, everything = mean_score([0.0] * 20), mean_score([1.0] * 20)
    assert (nothing.interval_by, nothing.interval_95[0], everything.interval_95[1]) == ("wilson", 0.0, 1.0)
    assert nothing.interval_95[1] == pytest.approx(0.161, abs=1e-3) == 1 - everything.interval_95[0]
    assert mean_score([0.0] * 20, is_share=False).interval_95 == (0.0, 0.0)
    assert mean_score([0.5], is_share=False).text() == " 0.50     (95 % interval 0.50 to 0.50)"
