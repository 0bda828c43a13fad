"""Whatever a model, a data set or a file name says, the page keeps its structure, loads nothing and runs one script."""

import base64
import hashlib
import json
import re

import pytest

from skd.report.page import json_block
from skd.report.quickstart import render_quickstart
from skd.report.run import render_runs
from skd.report.tokens import _marked
from skd.text import visible
from tests.report.pages import (
    PAYLOADS,
    QUICKSTART_FIELDS,
    RUN_FIELDS,
    Parsed,
    quickstart_page,
    run_directory,
)


@pytest.fixture(scope="module")
def benign_quickstart():
    return Parsed(render_quickstart(quickstart_page("x")))


@pytest.fixture(scope="module")
def benign_run(tmp_path_factory):
    return Parsed(render_runs([run_directory(tmp_path_factory.mktemp("runs") / "x", "x")]))


def assert_safe(parsed, html):
    assert parsed.policy.startswith("default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-")
    (script,) = parsed.scripts
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in parsed.policy
    for tag, name, value in parsed.attributes:
        assert not name.startswith("on"), (tag, name)
        assert name not in ("src", "action", "srcdoc", "formaction"), (tag, name)
        assert name != "href" or (tag == "use" and value.startswith("#")), (tag, value)
        assert name == "aria-label" or not re.search(r"https?://|javascript:|url\((?!#)", value or ""), (
            tag,
            name,
            value,
        )
    assert "a" not in {tag for tag, _ in parsed.structure}
    assert "http" not in re.search("<style>(.*?)</style>", html, re.DOTALL).group(1)
    assert visible(html) == html
    html.encode("utf-8")


@pytest.mark.parametrize("payload", PAYLOADS)
def test_quickstart_page(payload, benign_quickstart):
    html = render_quickstart(quickstart_page(payload))
    parsed = Parsed(html)
    assert parsed.structure == benign_quickstart.structure
    assert_safe(parsed, html)
    for field in QUICKSTART_FIELDS:
        assert f"{field} {visible(payload)}" in parsed.text, field
    (block,) = parsed.json
    # The teacher's most probable piece at the first token.
    data = json.loads(block)
    assert data["pieces"][data["tokens"][0][0][2][0]] == _marked(payload)


@pytest.mark.parametrize("payload", PAYLOADS)
def test_run_page(payload, benign_run, tmp_path):
    html = render_runs([run_directory(tmp_path / "x", payload)])
    parsed = Parsed(html)
    assert parsed.structure == benign_run.structure
    assert_safe(parsed, html)
    for field in RUN_FIELDS:
        shown = f"{field} {payload}"
        if field in ("config", "provenance"):
            shown = shown.encode("utf-8", "surrogatepass").decode("utf-8", "backslashreplace")
        assert visible(shown) in parsed.text, field


@pytest.mark.parametrize("payload", PAYLOADS)
def test_several_runs(payload, tmp_path):
    texts = {"hostile": payload, "benign": "x"}
    pages = {
        name: render_runs([run_directory(tmp_path / name / run, text) for run in ("a", "b")])
        for name, text in texts.items()
    }
    assert Parsed(pages["hostile"]).structure == Parsed(pages["benign"]).structure
    assert_safe(Parsed(pages["hostile"]), pages["hostile"])


@pytest.mark.parametrize("name", ["<script>x<", "a\"b'c", "\u202ex", "&amp;"])
def test_name_of_the_run_directory(name, benign_run, tmp_path):
    html = render_runs([run_directory(tmp_path / name, "x")])
    parsed = Parsed(html)
    assert parsed.structure == benign_run.structure
    assert_safe(parsed, html)
    assert visible(name) in parsed.text


def test_nothing_ends_a_json_block():
    block = json_block(["</script>", "<!--", "]]>", "\u2028", "&quot;'", "\x1b"])
    assert not set(block) & set("<>&'\u2028\x1b")
    assert json.loads(block) == ["</script>", "<!--", "]]>", "\\u2028", "&quot;'", "\\x1b"]
    with pytest.raises(ValueError):
        json_block([float("nan")])
