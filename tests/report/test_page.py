"""The HTML file: complete, offline, the same every time, and safe whatever the records say."""

from __future__ import annotations

import base64
import hashlib
import html
import re
import subprocess
import sys
import textwrap
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from made_up_runs import (
    ADDING,
    CHARS,
    COPY,
    MODELS,
    failed,
    full_run,
    make_folder,
    make_record,
    make_trial,
    speed_row,
    with_speed,
)
from matplotlib.figure import Figure

import seqbench.report
from seqbench.api import Block, Section
from seqbench.frame import COLUMNS
from seqbench.registry import Registry
from seqbench.results import Results
from seqbench.store import RunFolder

HOSTILE = (
    """<script>alert("x")</script>'"><img src=http://evil.example/x onerror=alert(1)> $\\frac{ & --> ]]> {{ 9**9 }}"""
)
Report = Callable[[RunFolder], str]


class Page(HTMLParser):
    """Tags, attributes and text of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.words: list[str] = []
        self.styles = ""
        self.scripts: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self._open.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        while self._open and self._open.pop() != tag:
            pass

    def handle_data(self, data: str) -> None:
        if "style" in self._open[-1:]:
            self.styles += data
        elif "script" in self._open[-1:]:
            self.scripts.append(data)
        else:
            self.words.append(data)


def assert_offline_and_inert(text: str) -> None:
    page = Page(text)
    assert not {"img", "iframe", "object", "embed", "link", "base", "form"} & set(page.tags)
    for tag, name, value in page.attributes:
        assert not name.startswith("on"), (tag, name, value)
        if name in {"src", "href", "xlink:href", "action", "srcset", "data"}:
            assert value.startswith(("#", "data:image/png")), (tag, name, value)
        if name not in {"title", "aria-label"}:
            assert not re.search(r"url\((?!#)", value), (tag, name, value)
    assert "url(" not in page.styles
    assert "@import" not in page.styles
    (policy,) = [value for tag, _, value in page.attributes if tag == "meta" and value.startswith("default-src 'none'")]
    assert page.tags.count("script") == 1, "our own"
    assert page.scripts == [(Path(seqbench.report.__file__).parent / "report.js").read_text(encoding="utf-8")]
    digest = base64.b64encode(hashlib.sha256(page.scripts[0].encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}';" in policy
    assert len(page.scripts[0].encode()) < 12_000


def test_offline(tmp_path: Path, report_text: Report) -> None:
    text = report_text(full_run(tmp_path, (COPY, ADDING)))
    assert_offline_and_inert(text)
    assert text.count("<svg") == 2 * 6


def test_same_bytes_every_time(tmp_path: Path, registry: Registry) -> None:
    folder = full_run(tmp_path, (COPY, ADDING), MODELS[:3])
    first = [(Results(folder, registry).write_report().read_bytes(), (folder.path / "results.csv").read_bytes())]
    assert [
        (Results(folder, registry).write_report().read_bytes(), (folder.path / "results.csv").read_bytes())
    ] == first


def test_same_bytes_in_another_process(tmp_path: Path, registry: Registry) -> None:
    folder = full_run(tmp_path, (COPY,), MODELS[:2])
    here = Results(folder, registry).write_report().read_bytes()
    code = """
        import sys
        from pathlib import Path
        from seqbench.registry import Registry
        from seqbench.results import Results
        from seqbench.store import RunFolder
        results = Results(RunFolder.open(Path(sys.argv[1])), Registry())
        results.write_report(), results.frame, results.summary, repr(results), results._repr_html_()
        assert "torch" not in sys.modules, "a report needs no torch"
        assert "seqbench_models" not in sys.modules
        """
    subprocess.run([sys.executable, "-c", textwrap.dedent(code), str(folder.path)], check=True, timeout=120)
    assert (folder.path / "report.html").read_bytes() == here


def test_ids_are_unique(tmp_path: Path, report_text: Report) -> None:
    ids = [value for _, name, value in Page(report_text(full_run(tmp_path, (COPY, ADDING)))).attributes if name == "id"]
    assert len(ids) == len(set(ids))


def test_every_planned_trial_shows(tmp_path: Path, report_text: Report) -> None:
    trials = [make_trial(task, label, s) for task in (COPY, ADDING) for label in MODELS for s in range(2)]
    records = [make_record(t, {"copy": COPY, "adding": ADDING}[t.task]) for t in trials[:3]]
    records += [failed(trials[4], "timeout", cause="killed after 7 s", log_tail="last words")]
    page = Page(report_text(make_folder(tmp_path, trials, records)))
    for label in MODELS:
        assert page.text.count(label) >= 2, label
    assert "24 trials: 3 ok, 1 timeout, 20 not run" in page.text
    assert "1 of 2 run" in page.text
    assert "timeout · janet · seed 0 killed after 7 s" in page.text
    assert "last words" in page.text
    table = (tmp_path / "a-run" / "results.csv").read_text(encoding="utf-8").splitlines()
    assert len(table) == 1 + len(trials)
    assert sum(",not_run," in line for line in table) == 20


def test_hostile_strings_everywhere_are_text(tmp_path: Path, report_text: Report) -> None:
    trials = [
        make_trial(label=label, seed=s, advice=f"warning: {HOSTILE}") for label in (HOSTILE, "=1+1") for s in (0, 1)
    ]
    trials = [replace(t, task_label=HOSTILE) for t in trials]
    records = [make_record(t) for t in trials[:3]] + [failed(trials[3], cause=HOSTILE, log_tail=HOSTILE * 2)]
    for record in records[:3]:
        record["references"][0] |= {"name": HOSTILE, "summary": HOSTILE}
        record["task"]["metrics"][0] |= {"name": HOSTILE, "summary": HOSTILE, "unit": HOSTILE}
        record["task"] |= {"score": HOSTILE, "select": HOSTILE}
        record["metrics"]["test"][HOSTILE] = record["score"]
        record["curve"]["valid"][HOSTILE] = record["curve"]["valid"]["loss"]
        record["references"][0]["metrics"][HOSTILE] = 12.5
        record["notes"] = [HOSTILE]
    more = {"environment": {HOSTILE: HOSTILE, "nested": {HOSTILE: HOSTILE}}, "created": HOSTILE, "seqbench": HOSTILE}
    data = [{"path": HOSTILE, "sha256": HOSTILE, "url": HOSTILE}]
    text = report_text(make_folder(tmp_path, trials, records, **more, data=data, warnings=[HOSTILE]))
    assert_offline_and_inert(text)
    assert str(9**9) not in text
    assert text.count("{{ 9**9 }}") > 20
    assert text.count("<svg") == 6
    assert text.count("<script") == 1


def test_labels_are_whole_in_the_table_and_short_in_the_figure(tmp_path: Path, report_text: Report) -> None:
    label = "model[" + ",".join(f"option_{n}={n}" for n in range(40)) + "]"
    text = report_text(full_run(tmp_path, models=(label, "lstm")))
    assert label in Page(text).text.replace(", ", ",").replace("[ ", "[")
    svg = text[text.index("<svg") : text.index("</svg>")]
    assert "…" in svg
    assert label not in svg


def test_a_dollar_or_a_strange_letter_does_not_stop_a_figure(tmp_path: Path, report_text: Report) -> None:
    text = report_text(full_run(tmp_path, models=("cost$x$", "模型", "\N{PILE OF POO}", "a\x00b")))
    assert "cost$x$" in text[text.index("<svg") : text.index("</svg>")]
    assert "\x00" not in text


def test_colours_follow_the_model_through_all_tasks(tmp_path: Path, report_text: Report) -> None:
    text = report_text(full_run(tmp_path, (COPY, ADDING), ("lstm", "gru")))
    signs = re.findall(r'style="color:(#\w+)" aria-hidden="true">(.)</i>(\w+)', text)
    assert {name: (colour, sign) for colour, sign, name in signs} == {
        "lstm": ("#0173b2", "●"),
        "gru": ("#de8f05", "■"),
    }
    assert len(set(signs)) == 2
    assert len(signs) == 2 * 2 * 2


def test_two_backends_differ_by_line_and_filling(tmp_path: Path, report_text: Report) -> None:
    trials = [make_trial(backend=b, seed=s) for b in ("torch", "numba") for s in range(2)]
    page = Page(report_text(make_folder(tmp_path, trials, [make_record(t) for t in trials])))
    assert "torch: solid line, filled marker; numba: dashed line, hollow marker" in page.text


def test_what_was_held_equal_and_what_not(tmp_path: Path, report_text: Report) -> None:
    trials = [make_trial(label="lstm"), make_trial(label="gru", threads=2)]
    page = Page(report_text(make_folder(tmp_path, trials, [make_record(t) for t in trials])))
    assert "training 1,000 steps batch 32 sequences" in page.text
    assert "Held equal: parameters (50.0k)" in page.text
    assert re.search(r"Not equal: seconds of training, [^.]+; device\.", page.text)
    assert "device differs: cpu, 1 thread; cpu, 2 threads" in page.text


def test_how_to_run_it_again_environment_and_data(tmp_path: Path, report_text: Report) -> None:
    data = [{"path": "a/b.txt", "sha256": "abc123", "url": "https://example.org/b.txt"}]
    trial = make_trial()
    page = Page(report_text(make_folder(tmp_path, [trial], [make_record(trial)], data=data)))
    assert "seqbench run results/a-run/spec.toml" in page.text
    assert 'task = ["copy"]' in page.text
    assert "packages.torch 2.13.0" in page.text
    assert "a/b.txt abc123 https://example.org/b.txt" in page.text


def test_the_legend_is_the_frames(tmp_path: Path, report_text: Report) -> None:
    text = Page(report_text(full_run(tmp_path, models=("lstm",), seeds=1))).text
    for column in COLUMNS:
        assert f"{column.name} {' '.join(column.summary.split())}" in text


# --- whatever is missing ----------------------------------------------------------------------------


def test_nothing_has_run(tmp_path: Path, report_text: Report) -> None:
    page = Page(report_text(make_folder(tmp_path, [make_trial(label=label) for label in MODELS], [])))
    assert "nothing to draw" in page.text
    assert page.text.count("not run") >= len(MODELS)


def test_everything_failed(tmp_path: Path, report_text: Report) -> None:
    trials = [make_trial(label=label) for label in MODELS]
    page = Page(report_text(make_folder(tmp_path, trials, [failed(t) for t in trials])))
    assert page.text.count("diverged") >= 2 * len(MODELS)


def test_nulls_in_every_place(tmp_path: Path, report_text: Report) -> None:
    trials = [make_trial(seed=s) for s in range(2)] + [make_trial(label="gru")]
    nothing = dict.fromkeys(("curve", "speed", "memory", "metrics", "steps", "best_step", "notes", "parameters"))
    records = [make_record(trials[0]), make_record(trials[1], **nothing), make_record(trials[2], **nothing, score=None)]
    records[2]["score"] = None
    assert_offline_and_inert(report_text(make_folder(tmp_path, trials, records)))


def test_odd_curves(tmp_path: Path, report_text: Report) -> None:
    trials = [make_trial(label=label, seed=s) for label in MODELS[:4] for s in range(2)]
    records = [make_record(t) for t in trials]
    valid = [r["curve"]["valid"] for r in records]
    valid[0] |= {"step": [50], "seconds": [1.0], "loss": [0.5], "recall": [3.0]}  # one point, beside a whole curve
    valid[2]["loss"] = valid[3]["loss"] = [None] * 20  # no number at all
    valid[4]["loss"][3] = None
    valid[6] |= {"step": [50], "seconds": [1.0], "loss": [0.5]}
    valid[7] |= {"step": [60], "seconds": [2.0], "loss": [0.7]}
    assert report_text(make_folder(tmp_path, trials, records)).count("<svg") == 6


@pytest.mark.parametrize("scores", [(5.0, 5.0, 5.0), (0.0, 0.0, 0.0), (-3.0, 1e-9, 1e12), (1e-9, 1e-3, 1.0)])
def test_odd_scores(tmp_path: Path, report_text: Report, scores: tuple[float, ...]) -> None:
    trials = [make_trial(ADDING, label, s) for label in "ab" for s in range(3)]
    records = [make_record(t, ADDING, scores[t.seed]) for t in trials]
    assert report_text(make_folder(tmp_path, trials, records)).count("<svg") == 6


def test_a_spec_of_another_version_is_shown_as_it_is(tmp_path: Path, report_text: Report) -> None:
    folder = make_folder(tmp_path, [make_trial()], [], spec={"task": ["copy"], "sparkle": 1})
    assert '"sparkle": 1' in Page(report_text(folder)).text


# --- sections ---------------------------------------------------------------------------------------


def test_sections_get_what_the_task_kept(tmp_path: Path, report_text: Report, section: Callable[..., None]) -> None:
    seen = []

    def make(views):
        seen.extend(views)
        figure = Figure()
        curve, picture = figure.subplots(1, 2)
        curve.set_title(HOSTILE.replace("$", ""))
        curve.semilogy([1, 10, 100])
        picture.imshow(np.eye(3))
        return Section(
            "A <title>",
            (
                Block("text", HOSTILE, HOSTILE),
                Block("code", "  two\n  lines" + HOSTILE),
                Block("table", [["head", HOSTILE], ["a", "b"]]),
                Block("figure", figure, "drawn"),
                Block("marked", [("plain\n", 0, ""), (HOSTILE, 0.256, HOSTILE), (" ", 1, 'a "title"')]),
            ),
        )

    section(make)
    folder = full_run(tmp_path, (COPY, ADDING), ("lstm",), 2)
    folder.write_arrays(folder.records()[0]["id"], {"task/g": np.arange(3), "weights/w": np.ones(2)})
    text = report_text(folder)
    assert_offline_and_inert(text)
    assert "  two\n  lines&lt;script&gt;" in text
    marked = re.search(r'<pre class="wrap marked">(.*?)</pre>', text, re.DOTALL)
    assert marked
    assert re.findall(r"<[a-z/]+", marked[1]) == ["<span", "</span"] * 3
    assert re.findall(r'style="([^"]*)"', marked[1]) == ["--s:0.00", "--s:0.26", "--s:1.00"]
    assert [html.unescape(title) for title in re.findall(r'title="([^"]*)"', marked[1])] == [HOSTILE, 'a "title"']
    assert html.unescape(re.sub(r"<[^>]*>", "", marked[1])) == f"plain\n{HOSTILE} "
    assert [(v.label, v.seed, v.colour) for v in seen] == [("lstm", 0, "#0173b2"), ("lstm", 1, "#0173b2")]
    assert list(seen[0].arrays) == ["g"]
    assert seen[1].arrays == {}
    assert text.count("<svg") == 2 * 6 + 1


def test_a_section_with_nothing_to_say_is_not_there(tmp_path: Path, report_text: Report, section) -> None:
    section(lambda views: None)
    assert "could not be made" not in report_text(full_run(tmp_path, models=("lstm",)))


def boom(_views: object) -> None:
    raise SystemExit(f"I quit {HOSTILE}")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (boom, "SystemExit: I quit &lt;script"),
        (lambda views: "text", "expected a seqbench.api.Section or None, got str"),
        (lambda views: Section("t", (Block("figure", "no figure"),)), "wants a matplotlib Figure, got str"),
        (lambda views: Section("t", (Block("table", "text"),)), "wants rows of cells"),
        (lambda views: Section("t", (Block("marked", "text"),)), "wants spans of (text, strength, title)"),
        (lambda views: Section("t", (Block("marked", [("text", 0.5)]),)), "wants spans of (text, strength, title)"),
        (lambda views: Section("t", (Block("marked", [("text", 1.5, "")]),)), "must be from 0 to 1"),
        (lambda views: Section("t", (Block("marked", [("text", float("nan"), "")]),)), "must be from 0 to 1"),
        (lambda views: Section("t", (Block("marked", [("text", "1;x", "")]),)), "could not convert"),
        (lambda views: Section("t", (Block("video", "x"),)), "unknown kind of block"),  # type: ignore[arg-type]
    ],
)
def test_a_section_that_raises_is_reported_in_its_place(tmp_path, report_text, section, make, message) -> None:
    section(make)
    text = report_text(full_run(tmp_path, models=("lstm",)))
    assert "This section could not be made" in text
    assert message in text
    assert_offline_and_inert(text)


def test_arrays_that_cannot_be_read_spoil_the_section_only(tmp_path, report_text, section) -> None:
    section(lambda views: Section("t", (Block("text", "fine"),)))
    folder = full_run(tmp_path, models=("lstm",))
    (folder.path / "artifacts").mkdir()
    (folder.path / "artifacts" / f"{folder.records()[0]['id']}.npz").write_bytes(b"no archive")
    assert "This section could not be made" in report_text(folder)


# --- cost -------------------------------------------------------------------------------------------


def test_six_models_on_four_tasks_with_five_seeds_stay_small(tmp_path: Path, report_text: Report) -> None:
    text = report_text(full_run(tmp_path, (COPY, ADDING, CHARS, replace(COPY, name="sentiment")), seeds=5))
    assert text.count("<svg") == 4 * 6
    assert len(text.encode()) < 3_000_000


def test_the_verdicts_come_first_and_what_was_held_equal_last(tmp_path: Path, report_text: Report) -> None:
    trials = [make_trial(task, label, s) for task in (COPY, ADDING) for label in MODELS[:3] for s in range(4)]
    records = [make_record(t, ADDING if t.task == "adding" else COPY) | {"notes": ["a remark"]} for t in trials[1:]]
    text = report_text(make_folder(tmp_path, trials, [failed(trials[0]), *records]))
    assert re.findall(r"<h[23]>(.*?)</h", text)[:10] == [
        "Ranks over tasks",
        "copy/<wbr>embedded",
        "Verdicts",
        "Leaderboard",
        "Figures",
        "Held equal, not equal",
        "Notes",
        "Failures",
        "adding/<wbr>embedded",
        "Verdicts",
    ]
    titles = re.findall(r"<figcaption>(.*?)</", text)[:6]
    assert [title.partition(" ")[0] for title in titles] == ["Test", "Test", "Test", "Test", "Validation", "Validation"]
    first = Page(text[: text.index("<h2>Ranks")]).text
    for said in re.findall(r'<ul class="verdicts">\n<li>(.*?)</li>', text):
        assert Page(said).text in first


def test_a_warning_stands_by_the_leaderboard_and_a_remark_at_the_end(tmp_path: Path, report_text: Report) -> None:
    trials = [
        make_trial(label=label, advice=f"{label} {kind}") for label, kind in (("lstm", "fits"), ("gru", "is odd"))
    ]
    trials[1] = replace(trials[1], advice="warning: gru is odd")
    text = Page(report_text(make_folder(tmp_path, trials, [make_record(t) for t in trials]))).text
    assert text.index("Leaderboard") < text.index("gru is odd") < text.index("Figures")
    assert text.index("Held equal, not equal") < text.index("lstm fits")


def test_a_section_across_sees_all_settings_of_its_task_once(tmp_path, report_text, section, registry) -> None:
    seen: list[list[str]] = []

    def make(views):
        seen.append([view.task_label for view in views])
        return Section("All together", (Block("text", "here"),))

    section(make)
    registry.sections = {n: replace(card, across=True) for n, card in registry.sections.items()}
    trials = [make_trial(task_label=f"copy[T={T}]/embedded") for T in (10, 20)]
    trials.append(make_trial(ADDING))
    records = [make_record(t, ADDING if t.task == "adding" else COPY) for t in trials]
    text = report_text(make_folder(tmp_path, trials, records))
    assert seen == [["copy[T=10]/embedded", "copy[T=20]/embedded"]]
    titles = [title.replace("<wbr>", "") for title in re.findall(r"<h[23]>(.*?)</h", text)]
    of_tasks = [title for title in titles if "/" in title or title == "All together"]
    assert of_tasks == ["copy[T=10]/embedded", "copy[T=20]/embedded", "All together", "adding/embedded"]


# --- a speed phase --------------------------------------------------------------------------------------


def test_a_speed_phase_stands_in_the_report(tmp_path: Path, report_text: Report) -> None:
    """Latencies in the leaderboard and under the scores, the tables below; rows that failed with their cause."""
    folder = full_run(tmp_path, (COPY, ADDING), ("lstm", "gru"), seeds=2)
    plain = Page(report_text(folder)).text
    assert "against inference time" in plain
    assert "Speed, apart from training" not in plain
    ill = speed_row("gru", "step", status="timeout", cause="no <b>sample</b> in 600 s", samples={}, backend="numba")
    rows = [speed_row(label, name) for name in ("infer", "step") for label in ("lstm", "gru")]
    text = report_text(with_speed(folder, *rows, ill))
    page = Page(text)
    assert page.text.count("Speed, apart from training") == 1, "the other task was not measured"
    assert page.text.count("against latency") == 1
    assert page.text.count("against inference time") == 1
    for said in ("infer, batch 1: ms a call", "step, batch 1: µs a step", "timeout: no <b>sample</b> in 600 s"):
        assert said in page.text
    assert "<b>" not in text
    board = text[text.index('class="board"') :].partition("</table>")[0]
    assert "Infer\nms" in board
    assert f">{speed_row('lstm', 'infer')['samples']['wall'][0] * 1.005 * 1e3:.2g}</td>" in board
    assert "T^p" not in text[text.index("infer, batch 1") :].partition("</table>")[0], "one length has no growth"


def test_a_speed_phase_of_another_machine_is_said_to_be_one(tmp_path: Path, report_text: Report) -> None:
    folder = full_run(tmp_path, models=("gru",), seeds=1)
    same = Page(report_text(with_speed(folder))).text
    assert "measured on A processor, 4 physical cores, 2026-01-02T03:04:05+00:00" in same
    assert "not as in training" not in same
    other = Page(report_text(with_speed(folder, environment={"cpu": "Another", "cores": "4 physical"}))).text
    assert "not as in training cpu was A processor, is Another" in other


@pytest.mark.parametrize(
    ("operations", "drawn", "said"),
    [
        (("infer", "step"), "latency", "Latency is of the speed phase below."),
        (("step",), "inference time", "Time per token is of scoring the test set, data and metric included."),
        ((), "inference time", "Time per token is of scoring the test set, data and metric included."),
    ],
)
def test_the_legend_says_of_the_time_that_is_drawn(
    tmp_path: Path, report_text: Report, operations: tuple[str, ...], drawn: str, said: str
) -> None:
    folder = full_run(tmp_path, models=("lstm", "gru"), seeds=2)
    if operations:
        with_speed(folder, *(speed_row(label, name) for name in operations for label in ("lstm", "gru")))
    page = Page(report_text(folder))
    assert [name for name in ("latency", "inference time") if f"against {name}" in page.text] == [drawn]
    assert [text for text in ("Latency is of", "Time per token is of") if text in page.text] == [
        said[: said.index("of") + 2]
    ]
    assert said in page.text


def test_growth_is_drawn_where_there_are_lengths(tmp_path: Path, report_text: Report) -> None:
    rows = [speed_row("gru", "infer", length=length) for length in (64, 128, 256)]
    page = Page(report_text(with_speed(full_run(tmp_path, models=("gru",), seeds=1), *rows)))
    assert "Time against length, ms a call" in page.text
    assert "Memory of a call against length, MiB" in page.text
    assert "1.00 ± 0.00" in page.text
