"""What the pages show, what they say when parts are missing, and how large they get."""

import json
import math
import re
import shutil
from pathlib import Path

import pytest

from skd.errors import CheckpointError, ResourceError
from skd.report import MethodRow, write
from skd.report.metrics import read_metrics
from skd.report.quickstart import render_quickstart
from skd.report.run import render_runs
from skd.report.timeline import Track, amounts, timeline
from skd.report.tokens import MAX_TOKENS, Budget, snapshot
from tests.report.pages import Parsed, quickstart_page, run_directory, summary, token_data, write_tokens

NBSP = "\u00a0"


def quickstart(**changes):
    return Parsed(render_quickstart(quickstart_page("x", **changes))).text


def test_quickstart_shows_scores_intervals_and_paired_change():
    text = quickstart()
    assert f"from 45.0{NBSP}% to 60.0{NBSP}% on 1,000 held-out items: +15.0 points" in text
    assert f"(95{NBSP}% interval +12.0 to +18.0, same items before and after)" in text
    assert f"57.0{NBSP}% to 63.0{NBSP}%" in text
    assert "Not on this page" not in text


def test_the_acceptance_of_each_of_several_teachers_is_one_figure(tmp_path):
    run = run_directory(tmp_path / "run", "x")
    told = {"math": {"responses": 3, "tokens": 9, "acceptance_rate": 0.5}, "<b>": {"acceptance_rate": 0.9}}
    rows = [{"step": step, "loss": 1.0, "by_teacher": told} for step in (1, 2)]
    (run / "metrics.jsonl").write_text("\n".join(map(json.dumps, rows)))
    text = Parsed(render_runs([run])).text
    assert text.count("Drafted tokens kept, by teacher") == 1
    assert "math" in text
    assert "<b>" in text
    assert "by_teacher" not in text


def test_no_clear_change_is_said():
    rows = list(quickstart_page("x").rows)
    rows[2] = MethodRow("skd", "SKD", 0.46, 0.43, 0.49, 0.01, -0.02, 0.04)
    text = quickstart(rows=rows)
    assert "+1.0 points" in text
    assert "−2.0 to +4.0" in text
    assert "no clear change" in text


def test_parts_without_data_are_named():
    text = quickstart(curves={}, loss_curves={}, acceptance_curves={"a": [(0, None)]}, tokens=[])
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
    text = quickstart(tokens=[data])
    assert "token view: " in text
    assert said in text


def test_tokens_carry_author_divergence_and_candidates():
    budget = Budget()
    one = snapshot(token_data(" und"), budget, 2)
    response = one.responses[0]
    assert response.tokens == [(" ", "und", "t student d0"), (" ", "b", "t teacher d4"), ("", "</s>", "t data d0")]
    assert list(budget.pieces) == ["␣und", "b", "␣b", "∅</s>".removeprefix("∅")]
    assert response.details[1] == [2, 1.5, [0, 7500, 1, 2500], [0, 7500, 1, 2500], 2]
    assert response.counts == [("student", 1), ("teacher", 1), ("data", 1)]
    assert (one.step, dict(one.counts), one.num_responses) == (3, {"student": 2, "teacher": 2, "data": 2}, 2)
    assert one.divergence == 0.75


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
    budget = Budget()
    response = snapshot(token_data(piece), budget, 1).responses[0]
    assert response.tokens[0][:2] == text
    assert list(budget.pieces)[response.details[0][4]] == marked


def test_long_and_many_responses_are_cut_with_a_count():
    row = token_data("x")["responses"][0]
    long = {key: (value * 1000 if isinstance(value, list) else value * 50_000) for key, value in row.items()}
    budget = Budget(responses=10, tokens=2_500)
    one = snapshot({"step": 1, "responses": [long] * 4 + [row] * 60}, budget, 60)
    assert (len(one.responses), one.num_responses) == (10, 64)
    assert [len(response.tokens) for response in one.responses] == [250] * 4 + [3] * 6
    assert one.responses[0].left_out == 3_000 - 250
    assert one.responses[0].prompt.endswith("(48,000 more characters)")
    assert (
        snapshot({"step": 1, "responses": [long]}, Budget(responses=1), 1).responses[0].left_out == 3_000 - MAX_TOKENS
    )


def test_the_largest_run_stays_below_five_megabytes(tmp_path):
    pieces = [f" piece{i}" for i in range(997)]
    top = [[pieces[i], 0.2] for i in range(5)]
    long = {
        "prompt": "p" * 5_000,
        "pieces": [pieces[i % 997] for i in range(400)],
        "authors": [1 + i % 2 for i in range(400)],
        "divergence": [0.12345] * 400,
        "teacher_top": [top] * 400,
        "student_top": [top] * 400,
    }
    runs = [run_directory(tmp_path / f"run-{i}", "x" * 100) for i in range(3)]
    rows = [{"step": i, **{f"{key}{i % 40}": i / 7 for key in ("loss", "a", "b")}} for i in range(5_000)]
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    for run in runs:
        (run / "metrics.jsonl").write_text(lines)
        (run / "config.yaml").write_text("key: value\n" * 50_000)
        for step in range(0, 120, 10):
            view = {"step": step, "responses": [{**long, "prompt": f"{i} {long['prompt']}"} for i in range(20)]}
            (run / "tokens" / f"step-{step}.json").write_text(json.dumps(view))
    for page in (render_runs(runs[:1]), render_runs(runs)):
        assert 1_000_000 < len(page.encode()) < 5_000_000
        shown = page.count('class="tokens"')
        assert 100 < shown <= 200
        assert "more responses count in the bars" in page


def test_a_whole_run(tmp_path):
    path = write(run_directory(tmp_path / "x", "x"))
    assert path == tmp_path / "x" / "report.html"
    text = Parsed(path.read_text()).text
    assert "Not on this page" not in text
    assert "50.0\u00a0%" in text
    assert "40.0 to 60.0\u00a0% · n 100" in text
    for part in ("by position", "Where the seconds go", "on the validation prompts", "decoding x"):
        assert part in text
    for part in ("Curves", "Who wrote which token", "Samples", "Configuration and provenance", "Scores"):
        assert part in text


def test_an_empty_run_says_what_is_missing(tmp_path):
    text = Parsed(render_runs([tmp_path])).text
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
    text = Parsed(render_runs([run])).text
    assert "3 line(s) of metrics.jsonl could not be read" in text
    assert "step-9.json cannot be shown" in text
    assert "step-10.json cannot be shown" in text
    assert "unreadable line" in text
    assert "there is no config.yaml" in text
    assert "step 2" in text


def test_configuration_of_the_newest_checkpoint_stands_in(tmp_path):
    for step in (9, 10):
        (tmp_path / "checkpoints" / f"step-{step}").mkdir(parents=True)
        (tmp_path / "checkpoints" / f"step-{step}" / "config.yaml").write_text(f"of step {step}")
    text = Parsed(render_runs([tmp_path])).text
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
    html = render_runs([tmp_path])
    assert "50 of 10,000" in html
    assert "more characters)" in html
    assert len(html) < 5_000_000


ODD = "\U000e0041" * 60
"""Each of its characters is an escape of ten characters on the page."""


@pytest.mark.parametrize("odd", ["tokens", "samples"])
def test_a_page_of_the_oddest_text_shows_less_of_it(tmp_path, odd):
    run = run_directory(tmp_path / "run", "x")
    if odd == "samples":
        shutil.rmtree(run / "tokens")
        record = {f"{number} {ODD}": ODD * 20 for number in range(12)}
        (run / "samples.jsonl").write_text((json.dumps(record) + "\n") * 60)
    else:
        pieces = [f"{i} {ODD}" for i in range(400)]
        top = [[f"{i} teacher {ODD}", 0.2] for i in range(5)]
        view = {"pieces": pieces, "authors": [1] * 400, "divergence": [0.1] * 400, "teacher_top": [top] * 400}
        responses = [{"prompt": f"{i} {ODD * 100}", **view, "student_top": [top] * 400} for i in range(16)]
        for step in range(0, 120, 10):
            write_tokens(run, {"step": step, "responses": responses})
    page = render_runs([run])
    assert 200_000 < len(page.encode()) < 5_000_000
    text = Parsed(page).text
    assert "The last 50 of 60" not in text
    assert text.count("there is no tokens/step-N.json") == (odd == "samples"), "said once, however often it is made"


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


def test_the_slider_goes_through_training_for_the_same_prompt(tmp_path):
    run = run_directory(tmp_path / "x", "x")
    for step in range(10, 310, 10):
        view = token_data("x", step)
        view["responses"][0] = {**view["responses"][0], "prompt": "of step 0 only" if step < 10 else "x"}
        (run / "tokens" / f"step-{step}.json").write_text(json.dumps(view))
    html = render_runs([run])
    steps = re.findall(r'class="moment(?: on)?" data-at="(\d+)"', html)
    assert steps == [str(i) for i in range(12)]
    assert 'max="11"' in html
    article = html[html.index("<article") : html.index("</article>")]
    assert re.findall(r"<span>step (\d+)</span>", article)[:2] == ["0", "20"]
    assert re.findall(r"<span>step (\d+)</span>", article)[-1] == "300"


def test_runs_of_different_length_share_one_slider():
    one = [snapshot(token_data("x", step), Budget(), 2) for step in (0, 10, 20, 30)]
    view = timeline([Track("long", 0, one), Track("short", 1, [one[0], one[3]])], Budget())
    assert view.stops == 4
    short = view.exchanges[0].answers[1][2]
    assert [(frame.at, frame.step) for frame in short] == [("0 1", 0), ("2 3", 30)]
    assert len(view.block["tokens"]) == 2 * (4 + 2)


@pytest.mark.parametrize(
    ("tracks", "stops", "expected"),
    [(1, 1, (1, 16)), (1, 6, (6, 16)), (1, 50, (12, 16)), (3, 50, (12, 5)), (6, 50, (8, 4)), (6, 2, (2, 16))],
)
def test_never_more_than_200_responses_are_shown(tracks, stops, expected):
    shown = amounts(tracks, stops)
    assert (shown.stops, shown.prompts) == expected
    assert tracks * shown.stops * shown.prompts <= 200


def test_several_runs_are_told_apart_and_compared(tmp_path, monkeypatch):
    runs = [run_directory(tmp_path / name / "run", "x") for name in ("a", "b")]
    (runs[1] / "metrics.jsonl").unlink()
    monkeypatch.chdir(tmp_path)
    page = write(runs)
    assert page == Path("report.html")
    text = Parsed(page.read_text()).text
    for part in ("2 runs side by side", "a/run", "b/run", "b/run: curves: there is no metrics.jsonl"):
        assert part in text
    assert write(runs, tmp_path / "other.html") == tmp_path / "other.html"


def test_a_summary_that_is_no_summary_is_named(tmp_path):
    run = run_directory(tmp_path / "x", "x")
    for name, content in (("a", "[]"), ("b", "{"), ("c", '{"task": "t", "scores": {"s": {"value": 1}}}')):
        (run / f"{name}.summary.json").write_text(content)
    nan = {"value": math.nan, "interval_95": [math.nan, math.nan], "n": 0}
    (run / "d.summary.json").write_text(json.dumps({"task": "t", "scores": {"s": nan}}))
    text = Parsed(render_runs([run])).text
    for name in "abc":
        assert f"scores: {name}.summary.json cannot be read" in text
    assert "– to – · n 0" in text


def test_counts_by_position_that_are_not_whole_are_left_out(tmp_path):
    good = {"from": [0], "kept": [1], "replaced": [0], "tokens": [1], "written": [0]}
    bad = [{**good, "kept": [1, 2]}, {**good, "tokens": ["a"]}, {"from": [0]}, {**good, "kept": [True]}, 7, None]
    rows = [{"step": i, "by_position": value} for i, value in enumerate([*bad, good])]
    (tmp_path / "metrics.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert read_metrics(tmp_path / "metrics.jsonl").positions == {len(bad): good}


def test_an_old_report_is_replaced(tmp_path):
    target = tmp_path / "page.html"
    target.write_text("old")
    assert write(quickstart_page("x"), target) == target
    assert target.read_text().startswith("<!doctype html>")
    assert [p.name for p in tmp_path.iterdir()] == ["page.html"]


def test_what_a_run_rests_on_stands_at_its_top(tmp_path):
    run = run_directory(tmp_path / "run", "x")
    starts = [{"time": "2026-11-24T10:00:00+00:00"}, {"time": "2026-11-24T12:34:56+00:00", "commit": "c" * 40}]
    models = {"teacher": {"digest": "t" * 64}, "student": {"revision": "s" * 40}}
    record = {"config_digest": "f" * 64, "models": models, "starts": starts}
    (run / "provenance.json").write_text(json.dumps(record))
    text = Parsed(render_runs([run])).text
    for said in ("started 2026-11-24 12:34:56 UTC", f"commit {'c' * 12} ", f"config {'f' * 12} ", "resumed 1 times"):
        assert said in text
    for said in (f"teacher {'t' * 12} ", f"student {'s' * 12} "):
        assert said in text


@pytest.mark.parametrize("record", ["[]", "null", "{", '{"starts": 3}', '{"starts": [7], "models": []}', "[" * 9_999])
def test_a_damaged_provenance_is_left_out(tmp_path, record):
    run = run_directory(tmp_path / "run", "x")
    (run / "provenance.json").write_text(record)
    assert "started" not in Parsed(render_runs([run])).text


def test_the_score_of_a_run_is_its_first_number(tmp_path):
    run = run_directory(tmp_path / "run", "x")
    assert f"50.0{NBSP}%task x: exact95{NBSP}% interval 40.0 to 60.0{NBSP}% · n 100" in Parsed(render_runs([run])).text


def test_a_score_before_training_stands_below_the_one_after(tmp_path):
    run = run_directory(tmp_path / "run", "x")
    found = summary("x")
    found["scores"] |= {"exact_before": found["scores"]["exact"], "other_before": found["scores"]["exact"]}
    (run / "scores" / "x.summary.json").write_text(json.dumps(found))
    text = Parsed(render_runs([run])).text
    assert text.count("run, before training") == 2, "its line, and what it rests on"
    assert "exact before" not in text
    assert "task x: other before" in text


@pytest.mark.parametrize(
    ("authors", "said"), [([1, 1, 2], "2 student · 1 teacher"), ([0, 0], "2 data"), ([1, "9"], '[1, "9"]')]
)
def test_the_authors_of_a_sample_are_counted(tmp_path, authors, said):
    run = run_directory(tmp_path / "run", "x")
    (run / "samples.jsonl").write_text(json.dumps({"step": 1, "authors": authors}) + "\n")
    assert said in Parsed(render_runs([run])).text
