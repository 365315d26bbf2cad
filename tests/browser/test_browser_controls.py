"""What the page's script adds, used as a reader would: sorting, filtering, values, one task, light and dark."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import Path

import pytest
from made_up_pages import FORMATS, LABELS, SHUFFLED
from playwright.sync_api import Locator, Page
from visits import Visit

from seqbench.report.collect import Run, read_run
from seqbench.report.figures import aggregate
from seqbench.report.look import look
from seqbench.store import RunFolder


@pytest.fixture(scope="module")
def run(folder: RunFolder) -> Run:
    return read_run(folder)


def board(page: Page, task: int) -> Locator:
    return page.locator(f"#task-{task} table.board")


def column_of(table: Locator, place: int) -> list[str]:
    """The cells of the visible rows, from above, without a model's sign."""
    cells = table.locator(f"tbody tr:visible td:nth-child({place + 1})").all_inner_texts()
    return [re.sub(r"^[^\w(]\n", "", text).strip() for text in cells]


def head(table: Locator, name: str) -> Locator:
    return table.locator("thead button", has_text=re.compile(rf"^{name}"))


# --- sorting ----------------------------------------------------------------------------------------

READ = {
    "mse": lambda row: row.scores.mean,
    "Params": lambda row: row.parameters,
    "Train\\s*tok": lambda row: row.median("speed", "train_tokens_per_s"),
    "Peak": lambda row: row.median("memory", "peak_mib"),
}


def test_a_leaderboard_sorts_by_value(visit: Visit, report: Path, run: Run) -> None:
    rows = {row.name: row for row in run.tasks[1].rows}
    references = ["trivial", "optimum"]
    before = [*rows, *references]
    with visit(report, at="#task-2") as page:
        table = board(page, 2)
        for name, read in READ.items():
            values = {label: read(row) for label, row in rows.items()}
            known = [label for label, value in values.items() if math.isfinite(value)]
            missing = [label for label in rows if label not in known]
            assert missing == ([] if name == "Params" else ["rnn"])
            assert column_of(table, 0) == before
            button, sorted_by = head(table, name), table.locator("th[aria-sort]")
            button.click()
            assert column_of(table, 0) == [*sorted(known, key=values.__getitem__), *missing, *references]
            assert sorted_by.get_attribute("aria-sort") == "ascending"
            button.press("Enter")
            downwards = [values[label] for label in column_of(table, 0)[: len(known)]]
            assert downwards == sorted((values[label] for label in known), reverse=True)
            assert column_of(table, 0)[len(known) :] == [*missing, *references]
            assert sorted_by.get_attribute("aria-sort") == "descending"
            button.press("Space")
            assert column_of(table, 0) == before
            assert sorted_by.count() == 0


def test_one_column_at_a_time(visit: Visit, report: Path) -> None:
    with visit(report, at="#task-1") as page:
        head(board(page, 1), "Params").click()
        head(board(page, 1), "Core").click()
        assert page.locator("th[aria-sort]").all_inner_texts() == ["Core"]


def test_every_form_of_number_sorts_by_what_it_means(visit: Visit, report: Path) -> None:
    with visit(report, at="#task-1") as page:
        table = page.locator("table", has=page.locator("button", has_text="interval"))
        for place, (name, cells) in enumerate(FORMATS.items()):
            present = [cell for cell in cells if cell not in {"", "–"}]
            assert column_of(table, place) == [cells[n] for n in SHUFFLED]
            button = head(table, f"{name}$")
            button.click()
            assert column_of(table, place)[: len(present)] == present
            button.click()
            assert column_of(table, place)[: len(present)] == present[::-1], "what is missing stays behind"
            button.click()


def test_the_pairs_sort_by_p(visit: Visit, report: Path, run: Run) -> None:
    with visit(report, at="#task-1") as page:
        page.locator("#task-1 summary", has_text="All 15 pairs").click()
        table = page.locator("#task-1 details[open] table")
        head(table, "p$").click()
        shown = [float(cell.removeprefix("< ")) for cell in column_of(table, 3)]
    assert shown == sorted(shown)
    assert shown == pytest.approx(sorted(v.p for v in run.tasks[0].verdicts), rel=0.06, abs=1e-4)


# --- filtering --------------------------------------------------------------------------------------


BOARD_FILTER = "#task-2 > .filter"


def test_a_filter_keeps_the_rows_that_have_every_word(visit: Visit, report: Path) -> None:
    with visit(report) as page:
        field = page.locator(BOARD_FILTER).locator("input")
        said = page.locator(BOARD_FILTER).locator("output")
        field.fill("T")
        assert said.inner_text() == "4 of 6 rows", "lstm, janet, tcn, transformer"
        field.fill("tr ok")
        shown = column_of(board(page, 2), 0)
        assert [name for name in LABELS if any(name in text for text in shown)] == [LABELS[4]]
        assert shown[1:] == ["trivial", "optimum"], "references are what a score is read against"
        assert said.inner_text() == "1 of 6 rows"
        assert len(column_of(board(page, 1), 0)) == 8, "another table is as it was"
        field.fill("nothing like it")
        assert said.inner_text() == "0 of 6 rows"
        field.fill("")
        assert len(column_of(board(page, 2), 0)) == 8
        assert said.inner_text() == ""


def test_a_filtered_table_sorts_and_stays_filtered(visit: Visit, report: Path) -> None:
    with visit(report, at="#task-2") as page:
        page.locator(BOARD_FILTER).locator("input").fill("n ok")
        shown = column_of(board(page, 2), 0)
        head(board(page, 2), "Params").click()
        assert sorted(column_of(board(page, 2), 0)) == sorted(shown)


def test_long_tables_have_a_filter_and_short_ones_none(visit: Visit, report: Path) -> None:
    with visit(report) as page:
        for summary in page.locator("summary").all():
            summary.click()
        for table in page.locator("table").all():
            rows = table.locator("tbody tr:not(.reference)").count()
            if "w11" in table.inner_text():
                assert rows == 12
                rows = 0  # some belong together, without the first of them they say nothing
                assert table.locator("button").count() == 0
            found = table.locator("xpath=../preceding-sibling::*[1][contains(@class, 'filter')]").count()
            assert found == (rows > 8 or "board" in (table.get_attribute("class") or "")), table.inner_text()[:80]


# --- values of points -------------------------------------------------------------------------------


def vertices(plot: Locator, colour: str, count: int) -> list[tuple[float, float]]:
    """Where the line of a colour with so many points is drawn, in pixels of the window."""
    return plot.evaluate(
        """(plot, [colour, count]) => {
             for (const path of plot.querySelectorAll("path")) {
               const points = [...path.getAttribute("d").matchAll(/[ML] ([-\\d.]+) ([-\\d.]+)/g)];
               if (points.length !== count || !path.getAttribute("style").includes(`stroke: ${colour}`)) continue;
               const matrix = path.getScreenCTM();
               return points.map(([, x, y]) => new DOMPoint(+x, +y).matrixTransform(matrix)).map((p) => [p.x, p.y]);
             }
             throw new Error(`no line of ${count} points in ${colour}`);
           }""",
        [colour, count],
    )


def curve_of(run: Run, task: int, label: str) -> tuple[Sequence[float], Sequence[float]]:
    row = next(row for row in run.tasks[task].rows if row.name == label)
    curve = aggregate(row.ok, "step", run.tasks[task].select)
    assert curve is not None
    return curve.x.tolist(), curve.mean.tolist()


def curves(page: Page, task: int) -> Locator:
    plot = page.locator(f"#task-{task} .plot[aria-label*='against training step']")
    plot.scroll_into_view_if_needed()
    return plot


@pytest.mark.parametrize("width", [1280, 390])
def test_pointing_at_a_curve_tells_the_point_that_is_drawn_there(
    visit: Visit, report: Path, run: Run, width: int
) -> None:
    x, y = curve_of(run, 1, "lstm")
    colour = look("lstm", "torch", run.labels, run.backends).colour
    with visit(report, at="#task-2", width=width) as page:
        plot = curves(page, 2)
        tip, ring = (plot.locator(f"xpath=../*[contains(@class, '{name}')]") for name in ("tip", "ring"))
        assert not tip.is_visible()
        for place in (3, 19):
            left, top = vertices(plot, colour, len(x))[place]
            page.mouse.move(left + 1, top - 1)
            assert tip.inner_text().startswith(f"● lstm · training step {x[place]:g} · mse ")
            assert float(tip.inner_text().rpartition(" ")[2]) == pytest.approx(y[place], rel=1e-3)
            box = ring.bounding_box()
            assert box is not None
            assert (box["x"] + box["width"] / 2, box["y"] + box["height"] / 2) == pytest.approx((left, top), abs=1.5)
        page.mouse.move(2, 2)
        assert not tip.is_visible()


def test_a_finger_does_it_too(visit: Visit, report: Path, run: Run) -> None:
    x, _ = curve_of(run, 1, "lstm")
    with visit(report, at="#task-2", width=390, has_touch=True) as page:
        plot = curves(page, 2)
        colour = look("lstm", "torch", run.labels, run.backends).colour
        page.touchscreen.tap(*vertices(plot, colour, len(x))[10])
        assert f"lstm · training step {x[10]:g} ·" in plot.locator("xpath=..").inner_text()


def test_arrow_keys_walk_along_the_curves(visit: Visit, report: Path, run: Run) -> None:
    with visit(report, at="#task-2") as page:
        plot = curves(page, 2)
        tip = plot.locator("xpath=../*[contains(@class, 'tip')]")
        names = [row.name for row in run.tasks[1].rows if row.ok]
        told = []
        for key in ("ArrowRight", "ArrowRight", "ArrowDown", "ArrowLeft", "ArrowLeft"):
            plot.press(key)
            told.append(" · ".join(tip.inner_text().removeprefix("● ").split(" · ")[:2]))
        steps = [50, 100, 100, 50, 50]
        rows = [names[0], names[0], names[1], names[1], names[1]]
        assert told == [f"{row} · training step {step}" for row, step in zip(rows, steps, strict=True)]
        plot.press("Escape")
        assert not tip.is_visible()


def test_every_figure_of_the_harness_tells_its_values(visit: Visit, report: Path) -> None:
    with visit(report, at="#task-3") as page:
        plots = page.locator("#task-3 .plot:not(.wide .plot)")
        assert plots.count() == 3 + 2 + 2, "scores against costs, curves, speed and memory against length"
        for plot in plots.all():
            plot.press("ArrowRight")
            assert plot.locator("xpath=../*[contains(@class, 'tip')]").is_visible()


# --- one task or all --------------------------------------------------------------------------------


def visible_tasks(page: Page, *expected: int) -> bool:
    """Whether these tasks are shown, or soon are: the page hears of another address a moment after the click."""
    for _ in range(100):
        if [n for n in range(1, 5) if page.locator(f"#task-{n}").is_visible()] == list(expected):
            return True
        page.wait_for_timeout(20)
    return False


def test_a_switch_between_tasks(visit: Visit, report: Path) -> None:
    with visit(report) as page:
        current = page.locator("nav [aria-current]")
        assert visible_tasks(page, 1, 2, 3, 4)
        assert current.all_inner_texts() == ["All tasks"]
        page.locator("nav a", has_text="char-lm").click()
        assert visible_tasks(page, 3)
        assert current.all_inner_texts() == ["char-lm/embedded"]
        assert page.url.endswith("#task-3")
        page.reload()
        assert visible_tasks(page, 3), "the address says which"
        page.locator("nav a", has_text="How to run it again").click()
        assert visible_tasks(page, 3), "other places on the page are no switch"
        page.go_back()
        page.locator("nav a", has_text="All tasks").click()
        assert visible_tasks(page, 1, 2, 3, 4)


def test_an_address_with_a_task(visit: Visit, report: Path) -> None:
    with visit(report, at="#task-2") as page:
        assert visible_tasks(page, 2)
    for nonsense in ("#nonsense", "#%", "#%E4", "#task-2%"):
        with visit(report, at=nonsense) as page:
            assert visible_tasks(page, 1, 2, 3, 4)
            page.locator("nav button").click()
            assert page.locator(".filter").count() > 0, "the other controls are there"


@pytest.mark.parametrize("width", [1280, 390])
def test_the_switch_goes_to_the_task(visit: Visit, report: Path, width: int) -> None:
    def assert_at(task: int) -> None:
        page.locator(f"#task-{task}").wait_for()
        top = page.locator(f"#task-{task} h2").evaluate("(heading) => heading.getBoundingClientRect().top")
        covered = page.locator("nav").evaluate("(nav) => Math.max(0, nav.getBoundingClientRect().bottom)")
        assert covered - 1 <= top <= covered + 40

    with visit(report, at="#task-2", width=width) as page:
        assert_at(2)
        for list_of_links, name, task in (("nav", "char-lm", 3), (".overview", "adding", 2), ("nav", "sentiment", 4)):
            page.evaluate("scrollTo(0, 1800)")
            page.locator(f"{list_of_links} a", has_text=name).evaluate("(link) => link.click()")
            assert_at(task)
        page.go_back()
        assert_at(2)


# --- light and dark ---------------------------------------------------------------------------------


def lightness(page: Page) -> list[float]:
    """Of the page's ground, its text, a figure's ground and a figure's text, 0 to 255."""
    colours = page.evaluate(
        """() => {
             const plot = document.querySelector(".plot");
             const of = (element, name) => getComputedStyle(element)[name];
             return [of(document.body, "backgroundColor"), of(document.body, "color"),
                     of(plot.querySelector("path"), "fill"), of(plot.querySelector("text"), "fill")];
           }"""
    )
    return [sum(map(float, re.findall(r"[\d.]+", colour)[:3])) / 3 for colour in colours]


def is_dark(page: Page) -> bool:
    ground, ink, paper, label = lightness(page)
    assert (ground < 128) == (paper < 128) == (ink > 128) == (label > 128), "page and figures go together"
    pressed = "true" if ground < 128 else "false"
    page.locator(f'nav button[aria-pressed="{pressed}"]').wait_for()  # the page hears of the system a moment later
    return ground < 128


@pytest.mark.parametrize("system", [False, True], ids=["light", "dark"])
def test_light_and_dark_follow_the_system_until_the_reader_chooses(visit: Visit, report: Path, system: bool) -> None:
    with visit(report, at="#task-1", dark=system) as page:
        assert is_dark(page) is system
        page.emulate_media(color_scheme="light" if system else "dark")
        assert is_dark(page) is not system
        page.locator("nav button").click()
        assert is_dark(page) is system
        page.wait_for_timeout(300)  # the browser writes down what a page keeps a moment later, in another process
        page.reload()
        assert is_dark(page) is system, "the choice is kept"


def test_the_switch_works_where_nothing_may_be_kept(visit: Visit, report: Path) -> None:
    refuse = """Object.defineProperty(window, "localStorage", {
      get() { throw new DOMException("refused", "SecurityError"); } })"""
    with visit(report, at="#task-1", before=refuse) as page:
        page.locator("nav button").click()
        assert is_dark(page)


@pytest.mark.parametrize("system", [False, True], ids=["light", "dark"])
def test_a_browser_without_light_dark_shows_a_light_page(
    visit: Visit, report: Path, tmp_path: Path, system: bool
) -> None:
    """Made of this browser: a page whose style asks for a function of colours that it does not know either."""
    text = report.read_text(encoding="utf-8")
    styles, rest = text[: text.index("</style>")], text[text.index("</style>") :]
    old = tmp_path / "report.html"
    old.write_text(styles.replace("light-dark(", "not-yet-known(") + rest, encoding="utf-8")
    with visit(old, at="#task-1", dark=system, before="CSS.supports = () => false") as page:
        ground, ink, paper, label = lightness(page)
        assert min(ground, paper) > 240
        assert max(ink, label) < 60
        assert page.locator("nav button").count() == 0, "there is nothing to switch"
        assert page.locator(".filter").count() > 0
