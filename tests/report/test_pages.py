"""What the pages show, what they say when parts are missing, and how large they get."""

import json
import math

import pytest

from skd.errors import CheckpointError, ResourceError
from skd.report import MethodRow, write
from skd.report.metrics import read_metrics
from skd.report.quickstart import render_quickstart
from skd.report.run import render_run
from skd.report.tokens import MAX_RESPONSES, MAX_TOKENS, Budget, token_view
from tests.report.pages import Parsed, quickstart_page, run_directory, token_data

NBSP = "\u00a0"


def quickstart(**changes):
    return Parsed(render_quickstart(quickstart_page("x", **changes))).text


def test_quickstart_shows_scores_intervals_and_paired_change():
    text = quickstart()
    assert f"from 45.0{NBSP}% to 60.0{NBSP}% on 1,000 held-out items: +15.0 points" in text
    assert f"(95{NBSP}% interval +12.0 to +18.0, same items before and after)" in text
    assert f"57.0{NBSP}% to 63.0{NBSP}%" in text
    assert "Not on this page" not in text


def test_no_clear_change_is_said():
    rows = list(quickstart_page("x").rows)
    rows[2] = MethodRow("skd", "SKD", 0.46, 0.43, 0.49, 0.01, -0.02, 0.04)
    text = quickstart(rows=rows)
    assert "+1.0 points" in text
    assert "−2.0 to +4.0" in text
    assert "no clear change" in text


def test_parts_without_data_are_named():
    text = quickstart(curves={}, loss_curves={}, acceptance_curves={"a": [(0, None)]}, tokens=None)
    assert "Not on this page" in text
    assert "learning curves: no measurement" in text
    assert "token view: none was recorded" in text


def test_a_score_that_is_no_number_is_a_dash():
    rows = [MethodRow("skd", "SKD", math.nan, math.nan, math.nan, math.nan, math.nan, math.nan, math.nan)]
    text = quickstart(rows=rows)
    assert "nan" not in text
    assert "– to –" in text


def test_an_empty_page_is_still_a_page():
    text = quickstart(rows=[], notes=[], versions={}, task_name="", command="", n_test=0, task_example=("", ""))
    assert "How to get this page again" in text


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"authors": [1, 2]}, "lengths differ"),
        ({"authors": [1, 2, 3]}, "author '3' is none of 0, 1, 2"),
        ({"divergence": "abc"}, "could not convert"),
        ({"teacher_top": [[["a"]], [], []]}, "not enough values"),
        ({"pieces": 7}, "TypeError"),
    ],
)
def test_a_malformed_token_view_is_named_not_raised(change, said):
    data = token_data("x")
    data["responses"][1] = {**data["responses"][1], **change}
    text = quickstart(tokens=data)
    assert "token view: " in text
    assert said in text


def test_tokens_carry_author_divergence_and_candidates():
    view = token_view(token_data(" und"), Budget())
    response = view.responses[0]
    assert response.tokens == [(" ", "und", "t student d0"), (" ", "b", "t teacher d4"), ("", "</s>", "t data d0")]
    assert response.details[1] == [2, 1.5, [("␣und", 0.75), ("b", 0.25)], [("␣und", 0.75), ("b", 0.25)], "␣b"]
    assert response.counts == [("student", 1), ("teacher", 1), ("data", 1)]
    assert view.authors == ["student", "teacher", "data"]


@pytest.mark.parametrize(
    ("piece", "text", "marked"),
    [
        (" a", (" ", "a"), "␣a"),
        ("", ("", "∅"), "∅"),
        (" ", ("", "␣"), "␣"),
        ("\n", ("", "↵\n"), "↵"),
        (" \n", (" ", "↵\n"), "␣↵"),
        ("a \t", ("", "a ⇥\t"), "a ⇥"),
        ("a  ", ("", "a  "), "a␣␣"),
    ],
)
def test_white_space_shows(piece, text, marked):
    response = token_view(token_data(piece), Budget()).responses[0]
    assert response.tokens[0][:2] == text
    assert response.details[0][4] == marked


def test_long_and_many_responses_are_cut_with_a_count():
    row = token_data("x")["responses"][0]
    long = {key: (value * 1000 if isinstance(value, list) else value * 50_000) for key, value in row.items()}
    view = token_view({"step": 1, "responses": [long] * 60}, Budget(tokens=2_500))
    assert view.left_out == 60 - 7
    assert [len(response.tokens) for response in view.responses] == [MAX_TOKENS] * 6 + [100]
    assert view.responses[0].left_out == 3_000 - MAX_TOKENS
    assert view.responses[0].prompt.endswith("(48,000 more characters)")
    assert token_view({"step": 1, "responses": [row] * 60}, Budget()).left_out == 60 - MAX_RESPONSES
    html = render_quickstart(quickstart_page("x", tokens={"step": 1, "responses": [long] * 60}))
    assert "2,600 more tokens not shown" in html.replace("2600", "2,600")
    assert len(html) < 5_000_000


def test_a_whole_run(tmp_path):
    path = write(run_directory(tmp_path / "x", "x"))
    assert path == tmp_path / "x" / "report.html"
    text = Parsed(path.read_text()).text
    assert "Not on this page" not in text
    for part in ("Curves", "Who wrote which token", "Samples", "Configuration and provenance", "validation/loss"):
        assert part in text


def test_an_empty_run_says_what_is_missing(tmp_path):
    text = Parsed(render_run(tmp_path)).text
    for part in ("there is no metrics.jsonl", "there is no tokens/step-N.json", "there is no config.yaml"):
        assert part in text


def test_a_killed_run_reports_what_is_whole(tmp_path):
    run = run_directory(tmp_path / "x", "x")
    with (run / "metrics.jsonl").open("a") as file:
        file.write('[1]\n{"step": -1, "loss": 1}\n{"step": 2, "loss": NaN}\n\n{"step": 3, "lo')
    (run / "tokens" / "step-9.json").write_text('{"step": 9, "resp')
    (run / "tokens" / "step-10.json").write_text("[" * 100_000)
    (run / "samples.jsonl").write_text('{"step": 1}\n{"st')
    (run / "config.yaml").unlink()
    text = Parsed(render_run(run)).text
    assert "3 line(s) of metrics.jsonl could not be read" in text
    assert "step-9.json cannot be shown" in text
    assert "step-10.json cannot be shown" in text
    assert "unreadable line" in text
    assert "there is no config.yaml" in text
    assert "Step 2" in text


def test_configuration_of_the_newest_checkpoint_stands_in(tmp_path):
    for step in (9, 10):
        (tmp_path / "checkpoints" / f"step-{step}").mkdir(parents=True)
        (tmp_path / "checkpoints" / f"step-{step}" / "config.yaml").write_text(f"of step {step}")
    text = Parsed(render_run(tmp_path)).text
    assert "of step 10" in text
    assert "of step 9" not in text


def test_a_step_run_again_counts_once_with_its_newest_value(tmp_path):
    lines = [
        {"step": 2, "loss": 1.0},
        {"step": 1, "loss": 3.0},
        {"step": 2, "loss": None, "a": {"b": True, "c": 10**400}},
    ]
    (tmp_path / "metrics.jsonl").write_text("\n".join(map(json.dumps, [*lines, {"step": 2, "loss": 0.5}])))
    metrics = read_metrics(tmp_path / "metrics.jsonl")
    assert metrics.series == {"loss": [(1.0, 3.0), (2.0, 0.5)], "a/c": [(2.0, None)]}
    assert (metrics.last_step, metrics.problems) == (2, [])


def test_ten_thousand_long_samples_stay_small(tmp_path):
    line = json.dumps({"prompt": "p" * 2_000, "response": "<&\u202e" * 500})
    (tmp_path / "samples.jsonl").write_text((line + "\n") * 10_000)
    html = render_run(tmp_path)
    assert "50 of 10,000" in html
    assert "more characters)" in html
    assert len(html) < 5_000_000


def test_errors_name_place_and_way_out(tmp_path):
    with pytest.raises(
        CheckpointError, match=r"error\[SKD-H07\] .*nowhere: there is no such directory; name the output"
    ):
        write(tmp_path / "nowhere")
    with pytest.raises(CheckpointError, match=r"SKD-H07.* holds nothing of a run: .*; name the output directory"):
        write(tmp_path)
    assert not list(tmp_path.iterdir())
    (tmp_path / "metrics.jsonl").touch()
    (tmp_path / "report.html").mkdir()
    with pytest.raises(ResourceError, match="SKD-H09"):
        write(tmp_path)


def test_an_old_report_is_replaced(tmp_path):
    target = tmp_path / "page.html"
    target.write_text("old")
    assert write(quickstart_page("x"), target) == target
    assert target.read_text().startswith("<!doctype html>")
    assert [p.name for p in tmp_path.iterdir()] == ["page.html"]
