# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""`ggdr report`: its page, what reaches it, and what the command says about bad input."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import subprocess
import sys
import webbrowser
from html.parser import HTMLParser

from ggdr.scripts.reports.page_html import json_for_html
from ggdr.torch_utils.pictures.plot_style import COLORS
from tests.conftest import ROOT
from tests.report_runs import EVIL, METRIC, add_clusters, data_of, invoke, make_run


def test_the_page_lies_in_the_run_folder_and_nothing_else_there_changes(tmp_path):
    path = make_run(tmp_path / "run")
    add_clusters(path)
    before = {file: (file.stat().st_mtime_ns, file.read_bytes()) for file in path.rglob("*") if file.is_file()}
    result = invoke(path)
    assert result.exit_code == 0, result.output
    page = path / "report.html"
    after = {file: (file.stat().st_mtime_ns, file.read_bytes()) for file in path.rglob("*") if file.is_file()}
    assert after.pop(page) and after == before
    assert f"written to {page}" in result.output and "MB" in result.output


def test_several_runs_go_to_the_current_folder_with_labels(tmp_path, monkeypatch):
    a, b = make_run(tmp_path / "a"), make_run(tmp_path / "b")
    monkeypatch.chdir(tmp_path)
    result = invoke(a, b, "--label", "weight 0", "--label", "weight 10")
    assert result.exit_code == 0, result.output
    assert "<title>weight 0 and weight 10 · GGDR report</title>" in (tmp_path / "report.html").read_text()


def test_a_run_that_goes_on_is_reported_with_half_a_line_and_without_snapshots(tmp_path):
    path = make_run(tmp_path / "run", ticks=3, snaps=())
    with open(path / "stats.jsonl", "a") as file:
        file.write('{"nimg": 4000, "kim')
    (path / "fakes000004.png").write_bytes(b"half a picture")
    data = data_of(path)
    assert data["runs"][0]["status"]["kimg"] == 3 and data["runs"][0]["snapshots"] == []
    assert data["samples"]["kinds"] == [] and "fakes000004.png" in data["notes"][0]
    result = invoke(path)
    assert result.exit_code == 0 and "note: " in result.output


def test_stats_alone_are_enough(tmp_path):
    path = make_run(tmp_path / "run", snaps=())
    (path / "log.txt").unlink()
    (path / "training_options.json").unlink()
    data = data_of(path)
    assert data["plots"] and data["settings"] == [] and "training_options.json" in data["notes"][0]
    assert data["runs"][0]["status"]["total"] is None and data["runs"][0]["command"] is None
    (path / "stats.jsonl").write_text("")  # before the first tick
    assert data_of(path)["plots"] == []
    assert invoke(path).exit_code == 0


def test_no_text_of_a_run_can_leave_the_data(tmp_path):
    text = json_for_html({"name": EVIL, "<!--": "&amp;\u2028"})
    assert not set("<>&") & set(text) and json.loads(text) == {"name": EVIL, "<!--": "&amp;\u2028"}
    path = make_run(tmp_path / "run", options={"classes": [EVIL], EVIL: EVIL})
    add_clusters(path, title=EVIL)
    page = tmp_path / "report.html"
    assert invoke(path, "--label", EVIL, "--out", page).exit_code == 0
    html = page.read_text()
    assert "<script>window" not in html and "<img src=x" not in html
    assert html.count("</script>") == 3  # data, plotly, ours


class _References(HTMLParser):
    """Addresses in a page's markup, its policy, and its scripts."""

    def __init__(self) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self.scripts: list[str] = []
        self.policy = ""
        self._in_script = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.addresses += [found[key] for key in ("src", "href", "action", "data") if key in found]
        self._in_script = tag == "script" and "type" not in found
        if self._in_script:
            self.scripts.append("")
        if found.get("http-equiv") == "Content-Security-Policy":
            self.policy = found["content"]

    def handle_data(self, data: str) -> None:
        if self._in_script:
            self.scripts[-1] += data

    def handle_endtag(self, tag: str) -> None:
        self._in_script = False


def test_the_page_names_nothing_to_fetch_and_forbids_it(tmp_path):
    page = make_run(tmp_path / "run") / "report.html"
    assert invoke(page.parent).exit_code == 0
    html = page.read_text()
    found = _References()
    found.feed(html)
    assert found.addresses and all(address.startswith(("#", "data:")) for address in found.addresses)
    assert "default-src 'none'" in found.policy and not re.search(r"\*|http|'self'|connect-src", found.policy)
    assert "unsafe" not in re.search(r"script-src ([^;]*)", found.policy)[1]
    hashes = [base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in found.scripts]
    assert re.findall(r"'sha256-([^']+)'", found.policy) == hashes
    style = html[html.index("<style>") : html.index("</style>")]
    assert "url(" not in style and "@import" not in style
    ours = "".join(path.read_text() for path in (ROOT / "scripts" / "reports" / "page").iterdir())
    assert not re.search(r"https?://|innerHTML|outerHTML|insertAdjacentHTML|document\.write|fetch\(", ours)


def test_the_page_of_a_long_run_stays_small(tmp_path):
    path = make_run(tmp_path / "run", ticks=8000, snaps=range(0, 100))
    page = tmp_path / "report.html"
    assert invoke(path, "--max-images", 20, "--out", page).exit_code == 0
    from plotly.offline import get_plotlyjs

    assert page.stat().st_size - len(get_plotlyjs().encode()) < 1.2e6
    assert (path / "stats.jsonl").stat().st_size > 1.5e6


def test_page_and_curves_have_the_same_colours():
    style = (ROOT / "scripts" / "reports" / "page" / "page.css").read_text()
    assert tuple(re.findall(r"--color-\d: light-dark\((#\w+),", style)) == COLORS


def test_bad_input_is_named_and_the_old_page_stays(tmp_path):
    good = make_run(tmp_path / "good")
    broken, unmeasured = make_run(tmp_path / "broken"), make_run(tmp_path / "unmeasured")
    (broken / "stats.jsonl").write_text('{"nimg": 1}\nnonsense\n{"nimg": 2}\n')
    (unmeasured / f"metric-{METRIC}.jsonl").write_text('{"metric": 3}\n')
    many = [make_run(tmp_path / f"many{i}", ticks=1, snaps=()) for i in range(8)]
    out = tmp_path / "x.html"
    out.write_bytes(b"old")
    for args, messages in (
        ([tmp_path / "nowhere"], ["nowhere", "stats.jsonl"]),
        ([tmp_path], ["expected a run folder"]),
        ([broken], ["broken", "line 2", "nonsense"]),
        ([unmeasured], [METRIC, "line 1"]),
        ([good, good], ["--label", "good"]),
        ([good, "--label", "a", "--label", "b"], ["2 labels for 1 runs"]),
        ([good, "--max-images", "1"], ["--max-images"]),
        (many, ["8 runs", "7 at most"]),
    ):
        result = invoke(*args, "--out", out)
        assert result.exit_code == 2 and isinstance(result.exception, SystemExit), result.output
        for message in messages:
            assert message in " ".join(result.output.split())
        assert out.read_bytes() == b"old"
    result = invoke(good, "--out", tmp_path / "nowhere" / "x.html")
    assert result.exit_code == 2 and "--out" in result.output


def test_open_shows_the_page_in_the_browser(tmp_path, monkeypatch):
    opened = []
    monkeypatch.setattr(webbrowser, "open", lambda uri: opened.append(uri) or True)
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    monkeypatch.setenv("DISPLAY", ":0")
    path = make_run(tmp_path / "a run", snaps=())
    assert invoke(path).exit_code == 0 and opened == []
    assert invoke(path, "--open").exit_code == 0
    assert opened == [(path / "report.html").resolve().as_uri()]
    monkeypatch.delenv("DISPLAY")
    result = invoke(path, "--open")
    assert result.exit_code == 0 and f"open {(path / 'report.html').resolve()}" in result.output
    assert len(opened) == 1, "a text browser would take the terminal over"


def test_help_loads_no_heavy_package():
    code = (
        "import sys, ggdr.scripts.report\n"
        "heavy = {'torch', 'plotly', 'numpy', 'rich', 'PIL'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
        "sys.argv[1:] = ['--help']\n"
        "ggdr.scripts.report.main()\n"
    )
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("  ggdr report runs/") == 2
