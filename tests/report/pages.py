"""What the report tests share: pages filled with one text in every field, and a parser of what came out."""

import json
from html.parser import HTMLParser
from pathlib import Path

from skd.report import MethodRow, QuickstartPage
from skd.report.compare import ComparedMethod, ComparedTable, ComparisonPage, Curves

PAYLOADS = [
    "<script>alert(1)</script>",
    "</script><script>alert(1)</script>",
    "</style><style>*{display:none}",
    "<!--",
    "-->]]>",
    '"><img src=x onerror=alert(1)>',
    "' onmouseover='alert(1)",
    '" style="background:url(//e.example)',
    "javascript:alert(1)",
    "<a href=javascript:alert(1)>x</a>",
    "<svg onload=alert(1)><use href=#x>",
    "</textarea></title></pre><h1>x",
    "{{ 7 * 7 }}{% raw %}",
    "$\\frac{1}{$ \\[x\\]",
    "&lt;b&gt;&#x3c;script&#x3e;",
    "a\u202etxt.exe\u2066\u200e",
    "\x1b[2J\x1b]0;x\x07\r\x00\x9b",
    "\ud800\ufffe\U000e0041",
    "url(https://e.example/x.png)",
    "var(--ink)} body{display:none",
    "%s %(x)s \\u0000",
]


def token_data(text, step=3):
    top = [[text, 0.75], ["b", 0.25]]
    response = {
        "prompt": text,
        "pieces": [text, " b", "</s>"],
        "authors": [1, 2, 0],
        "divergence": [0.0, 1.5, None],
        "teacher_top": [top, top, []],
        "student_top": [top, top, top],
    }
    return {"step": step, "responses": [response, response]}


def quickstart_page(text, **changes):
    rows = [
        MethodRow("teacher", "t " + text, 0.99, 0.98, 1.0),
        MethodRow("start", "s " + text, 0.45, 0.42, 0.48),
        MethodRow("skd", "k " + text, 0.6, 0.57, 0.63, 0.15, 0.12, 0.18, 25.0, 150),
    ]
    curves = {"k " + text: [(0, 0.45), (100, 0.6)]}
    fields = {
        "rows": rows,
        "curves": curves,
        "loss_curves": curves,
        "acceptance_curves": {"other " + text: [(0, 0.9), (100, 0.95)]},
        "tokens": [token_data(text, 0), token_data(text)],
        "task_name": "name " + text,
        "task_example": ("prompt " + text, "reference " + text),
        "n_test": 1000,
        "command": "command " + text,
        "versions": {"key " + text: "value " + text},
        "notes": ["note " + text],
    }
    return QuickstartPage(**{**fields, **changes})


QUICKSTART_FIELDS = ["t", "s", "k", "name", "prompt", "reference", "command", "key", "value", "note"]


def run_directory(directory: Path, text):
    directory.mkdir(parents=True)
    ranges = {"from": [0, 4], "kept": [3, 1], "replaced": [1, 1], "tokens": [4, 2], "written": [1, 1]}
    own = {"metric " + text: 1.0, "by_position": ranges, "seconds_draft": 0.5, "seconds_forward": 1.0, "tokens": 6}
    rows = [{"step": i, "loss": 1 / (i + 1), **own, "validation": {"loss": 1.0}} for i in range(3)]
    (directory / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for step in (0, 2):
        write_tokens(directory, token_data(text, step))
    (directory / "scores").mkdir()
    (directory / "scores" / "x.summary.json").write_text(json.dumps(summary(text)))
    (directory / "samples.jsonl").write_text(json.dumps({"step": 1, "field " + text: "sample " + text}) + "\n")
    (directory / "config.yaml").write_bytes(("# config " + text).encode("utf-8", "surrogatepass"))
    (directory / "provenance.json").write_bytes(("provenance " + text).encode("utf-8", "surrogatepass"))
    return directory


def write_tokens(run, data):
    (run / "tokens").mkdir(exist_ok=True)
    (run / "tokens" / f"step-{data['step']}.json").write_text(json.dumps(data))


def summary(text):
    score = {"value": 0.5, "interval_95": [0.4, 0.6], "n": 100, "interval_by": "wilson", "signature": "how " + text}
    sizes = {"value": 30.0, "interval_95": [25.0, 35.0], "n": 100, "interval_by": "bootstrap", "is_share": False}
    return {"task": "task " + text, "scores": {"exact": score, "bleu": sizes}, "decoding": {"key": "decoding " + text}}


RUN_FIELDS = ["metric", "field", "sample", "config", "provenance", "task", "how", "decoding"]


class Parsed(HTMLParser):
    """Elements with their attributes, apart from the data that a reader of the screen hears; text; JSON blocks."""

    def __init__(self, html):
        super().__init__(convert_charrefs=True)
        self.structure, self.attributes, self.text, self.scripts, self.json = [], [], "", [], []
        self._open = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag, attributes):
        self._open.append((tag, dict(attributes)))
        self.attributes += [(tag, name, value) for name, value in attributes]
        self.structure.append((tag, [(name, value) for name, value in attributes if name != "aria-label"]))

    def handle_endtag(self, tag):
        self.structure.append(("/" + tag, []))
        self._open = self._open[:-1]

    def handle_comment(self, data):
        self.structure.append(("comment", [("data", data)]))

    def handle_data(self, data):
        tag, attributes = self._open[-1] if self._open else ("", {})
        if tag == "script":
            (self.json if attributes.get("type") == "application/json" else self.scripts).append(data)
        elif tag != "style":
            self.text += data

    @property
    def policy(self):
        values = [dict(attributes) for tag, attributes in self.structure if tag == "meta"]
        return next(v["content"] for v in values if v.get("http-equiv") == "Content-Security-Policy")


def comparison_page(text, **changes):
    methods = [
        ComparedMethod("a " + text, 0.7, 0.67, 0.73, [0.69, 0.71], 0.1, 0.05, 0.15, 1e-5, "wins", "best", 60.0, 12.5),
        ComparedMethod("b " + text, 0.68, 0.65, 0.71, [0.6, 0.76], 0.08, -0.02, 0.18, 0.2, "tie", "tie", 60.0, 9.0),
        ComparedMethod("c " + text, 0.6, 0.57, 0.63, [0.6], None, None, None, None, "", "behind", 60.0, 5.0),
    ]
    series = {"a " + text: [(0.0, 0.4), (100.0, 0.7)], "c " + text: [(0.0, 0.4), (100.0, 0.6)]}
    fields = {
        "name": "name " + text,
        "tables": [ComparedTable("title " + text, "lead " + text, methods, [0.99, 0.4])],
        "curves": [Curves("curve " + text, "seconds", series)],
        "notes": ["note " + text],
        "command": "skd compare " + text,
        "facts": {"commit": "fact " + text},
    }
    return ComparisonPage(**{**fields, **changes})
