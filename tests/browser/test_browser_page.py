"""The page itself: it stays offline, fits its window, is accessible, needs no script, and lets no text become code."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from made_up_pages import LABELS, section_card, write
from made_up_runs import COPY, failed, make_folder, make_record, make_trial
from playwright.sync_api import Locator, Page
from visits import Visit

from seqbench.api import Block, Section

WIDTHS = (1280, 390)


def unfold(page: Page) -> None:
    page.evaluate("() => document.querySelectorAll('details').forEach((one) => { one.open = true; })")


# --- offline ----------------------------------------------------------------------------------------


def test_from_end_to_end_nothing_is_asked_for_and_nothing_complains(visit: Visit, report: Path) -> None:
    with visit(report) as page:
        unfold(page)
        page.keyboard.press("End")
        page.evaluate("() => document.querySelectorAll('button, nav a').forEach((one) => one.click())")
        page.locator("#task-4 .plot").last.hover()


POLICY = '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; img-src {}">'


@pytest.mark.parametrize(
    "text",
    [
        POLICY.format("data:") + "<script>document.title = 1</script>",
        POLICY.format("data:") + '<img src="https://example.org/x.png">',
        POLICY.format("*") + '<img src="https://example.org/x.png">',
        "<script>alert(1)</script>",
        "<script>throw 1</script>",
    ],
)
def test_a_visit_notices_what_must_not_be(visit: Visit, tmp_path: Path, text: str) -> None:
    """The check that every test here rests on, on pages that it must refuse."""
    path = tmp_path / "page.html"
    path.write_text(f"<!DOCTYPE html>{text}", encoding="utf-8")
    with pytest.raises(AssertionError), visit(path) as page:
        page.wait_for_timeout(100)


# --- layout -----------------------------------------------------------------------------------------

OUTSIDE = """() => {
  const contained = (element) => {
    for (let up = element.parentElement; up; up = up.parentElement)
      if (["auto", "scroll", "hidden"].includes(getComputedStyle(up).overflowX)) return true;
    return false;
  };
  return [...document.body.querySelectorAll("*")]
    .filter((element) => {
      const box = element.getBoundingClientRect();
      return box.width && (box.left < -1 || box.right > innerWidth + 1) && !contained(element);
    })
    .map((element) => `${element.tagName}: ${element.textContent.slice(0, 60)}`);
}"""

OVERLAPS = """() => {
  // the boxes of all lines of text that can be seen, each cut to what its scroll containers show
  const cut = (box, element) => {
    let {left, top, right, bottom} = box;
    for (let up = element; up; up = up.parentElement)
      if (getComputedStyle(up).overflowX !== "visible") {
        const shown = up.getBoundingClientRect();
        [left, right] = [Math.max(left, shown.left), Math.min(right, shown.right)];
        [top, bottom] = [Math.max(top, shown.top), Math.min(bottom, shown.bottom)];
      }
    return {left, top, right, bottom};
  };
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  const lines = [];
  while (walker.nextNode()) {
    const node = walker.currentNode, parent = node.parentElement;
    if (!node.data.trim() || !parent.checkVisibility() || parent.closest("script, style")) continue;
    const range = document.createRange();
    range.selectNodeContents(node);
    for (const box of range.getClientRects())
      if (box.width > 1) lines.push({...cut(box, parent), text: node.data.trim().slice(0, 40), node});
  }
  lines.sort((a, b) => a.top - b.top);
  const found = [];
  lines.forEach((one, n) => {
    for (let m = n + 1; m < lines.length && lines[m].top < one.bottom; m++) {
      const other = lines[m];
      const wide = Math.min(one.right, other.right) - Math.max(one.left, other.left);
      const high = Math.min(one.bottom, other.bottom) - Math.max(one.top, other.top);
      if (wide > 1.5 && high > 3) found.push(`${one.text} | ${other.text}`);
    }
  });
  return {found, lines: lines.length};
}"""

CUT_OFF = """() => [...document.querySelectorAll("svg text")].filter((text) => {
    const [box, svg] = [text.getBoundingClientRect(), text.closest("svg").getBoundingClientRect()];
    return box.left < svg.left - 1 || box.right > svg.right + 1 || box.top < svg.top - 1 || box.bottom > svg.bottom + 1;
  }).map((text) => text.textContent)"""


@pytest.fixture(scope="module", params=WIDTHS)
def unfolded(request: pytest.FixtureRequest, visit: Visit, report: Path) -> Iterator[Page]:
    """Everything open, at one width."""
    with visit(report, width=request.param) as page:
        unfold(page)
        yield page


def test_the_page_is_no_wider_than_its_window(unfolded: Page) -> None:
    assert unfolded.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0


def test_nothing_reaches_out_of_the_window_but_what_can_be_scrolled(unfolded: Page) -> None:
    assert unfolded.evaluate(OUTSIDE) == []


def test_no_text_lies_on_another(unfolded: Page) -> None:
    told = unfolded.evaluate(OVERLAPS)
    assert told["lines"] > 1000
    assert told["found"] == []


def test_no_label_of_a_figure_is_cut_off(unfolded: Page) -> None:
    assert unfolded.evaluate(CUT_OFF) == []


def test_what_scrolls_can_be_scrolled_with_the_keyboard(unfolded: Page) -> None:
    wide = """() => [...document.querySelectorAll("*")].filter((one) =>
        ["auto", "scroll"].includes(getComputedStyle(one).overflowX) && one.scrollWidth > one.clientWidth + 1)"""
    told = unfolded.evaluate(f"() => ({wide})().map((one) => one.tabIndex)")
    assert told or unfolded.viewport_size == {"width": 1280, "height": 900}
    assert set(told) <= {0}


def below_the_list(page: Page, heading: Locator) -> float:
    """How far a heading's upper edge lies below the list of contents, in pixels."""
    return float(
        heading.evaluate(
            """(heading) => heading.getBoundingClientRect().top
                 - document.querySelector("nav").getBoundingClientRect().bottom"""
        )
    )


@pytest.mark.parametrize("scripts", [True, False])
@pytest.mark.parametrize(("width", "height"), [(1280, 800), (800, 600)])
def test_a_long_list_of_contents_leaves_the_page_its_room(
    visit: Visit, long_report: Path, width: int, height: int, scripts: bool
) -> None:
    with visit(long_report, width=width, java_script_enabled=scripts) as page:
        page.set_viewport_size({"width": width, "height": height})
        for target, link in (("#task-20", "length=120"), ("#task-32", "length=132"), ("#columns", "What the columns")):
            page.locator("nav a", has_text=link).click()
            heading = page.locator(f"{target} h2")
            heading.wait_for()
            assert 0 <= below_the_list(page, heading) < 0.3 * height
            box = page.locator("nav").bounding_box()
            assert box is not None
            assert box["y"] == 0
            assert box["height"] <= height / 4


def test_a_long_list_of_contents_scrolls_with_the_keyboard_and_keeps_the_switch(
    visit: Visit, long_report: Path
) -> None:
    with visit(long_report) as page:
        names, switch = page.locator("nav ul"), page.locator("nav button")
        page.evaluate("scrollTo(0, 400)")
        before = switch.bounding_box()
        assert names.get_attribute("tabindex") == "0", "not every browser lets the keyboard at what merely scrolls"
        names.press("End")
        page.wait_for_timeout(300)
        assert page.evaluate("document.querySelector('nav ul').scrollTop") > 50
        assert page.evaluate("scrollY") == 400
        assert switch.bounding_box() == before
        assert grave(page) == []


def test_a_list_of_contents_of_one_line_does_not_scroll(visit: Visit, report: Path) -> None:
    with visit(report) as page:
        assert (
            page.evaluate(
                "(({scrollHeight, clientHeight}) => scrollHeight - clientHeight)(document.querySelector('nav ul'))"
            )
            <= 0
        )
        assert page.locator("nav ul[tabindex]").count() == 0


# --- accessibility ----------------------------------------------------------------------------------


def grave(page: Page) -> list[str]:
    found = Axe().run(page).response["violations"]
    return [
        f"{one['id']} ({one['impact']}): {node['html'][:150]}"
        for one in found
        if one["impact"] in {"serious", "critical"}
        for node in one["nodes"]
    ]


@pytest.mark.parametrize(("width", "dark"), [(1280, False), (1280, True), (390, False)])
def test_axe_finds_nothing_serious(visit: Visit, report: Path, width: int, dark: bool) -> None:
    """On the task that has one of everything; axe looks at what is visible alone, and takes its time."""
    with visit(report, at="#task-1", width=width, dark=dark) as page:
        unfold(page)
        assert grave(page) == []


def test_axe_finds_what_is_wrong(visit: Visit, report: Path) -> None:
    with visit(report, at="#task-3") as page:
        page.evaluate("document.querySelector('h1').style.color = '#ddd'")
        page.evaluate("document.querySelector('nav button').textContent = ''")
        assert {found.partition(" ")[0] for found in grave(page)} == {"color-contrast", "button-name"}


# --- without scripts, and on paper ------------------------------------------------------------------


def words(page: Page) -> str:
    return " ".join(page.locator("body").inner_text().split())


def test_without_scripts_everything_is_there_and_nothing_dead(visit: Visit, report: Path) -> None:
    with visit(report, java_script_enabled=False) as page:
        unfold(page)
        without = words(page)
        assert page.locator("button, input, output, [aria-pressed], [tabindex]").count() == 0
        assert all(page.locator(f"#task-{n}").is_visible() for n in range(1, 5))
    with visit(report) as page:
        unfold(page)
        assert page.locator(".control").count() > 5
        page.evaluate("() => document.querySelectorAll('.control').forEach((one) => one.remove())")
        assert words(page) == without
    for text in (
        *LABELS,
        "is better than",
        "Held equal",
        "last words",
        "at 0.55",
        "What the columns mean",
        "0123456789abcdef",
    ):
        assert text in without


def test_a_printed_page_has_no_controls_and_everything_unfolded(visit: Visit, report: Path) -> None:
    with visit(report, dark=True) as page:
        page.emulate_media(media="print")
        unfold(page)
        expected = words(page)
        page.evaluate("() => document.querySelectorAll('details').forEach((one) => { one.open = false; })")
        assert words(page) == expected
        assert page.locator(".control:visible").count() == 0
        assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
        mark = page.locator(".marked span", has_text="at 0.55")
        assert mark.evaluate("(mark) => getComputedStyle(mark).printColorAdjust") == "exact", "else paper has no marks"


# --- hostile texts ----------------------------------------------------------------------------------

LABEL = "<script>alert(1)</script>"
HTML = """<img src=x onerror=alert(2)><b id=planted>bold</b></script></style><!-- '" --><svg onload=alert(3)>"""
TITLE = """copy"quoted"/it's <i>T</i>"""


def hostile(_views: object) -> Section:
    rows = [[HTML, "n"], *([f"{HTML}{n}", str(n)] for n in range(12))]
    return Section(HTML, (Block("text", HTML, HTML), Block("code", HTML, HTML), Block("table", rows, HTML)))


@pytest.fixture(scope="module")
def hostile_report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    labels = (LABEL, "lstm", '" onmouseover="alert(4)')
    trials = [replace(make_trial(COPY, label, s), task_label=TITLE) for label in labels for s in range(3)]
    records = [make_record(trial) | {"notes": [HTML]} for trial in trials[:-1]]
    records.append(failed(trials[-1], cause=HTML, log_tail=HTML))
    folder = make_folder(tmp_path_factory.mktemp("hostile"), trials, records, warnings=[HTML], environment={HTML: HTML})
    return write(folder, section_card(hostile))


def test_hostile_texts_stay_texts(visit: Visit, hostile_report: Path) -> None:
    with visit(hostile_report) as page:
        unfold(page)
        assert page.locator("script").count() == 1
        assert page.locator("img, #planted, i:not(.sign, .tip i), body b").count() == 0
        assert page.locator("[onerror], [onload], [onmouseover]").count() == 0
        assert page.locator(".board td", has_text=LABEL).count() == 1
        assert page.locator("h2", has_text=TITLE).count() == 1
        assert page.locator("pre", has_text=HTML).first.is_visible()


def test_hostile_texts_stay_texts_in_what_the_script_makes(visit: Visit, hostile_report: Path) -> None:
    with visit(hostile_report) as page:
        unfold(page)
        for control in page.locator("input").all():
            control.fill("alert(")
        for control in page.locator("button:visible").all():
            control.click()
        plot = page.locator(".plot[data-points]").nth(3)
        told = []
        for _ in range(3):
            plot.press("ArrowDown")
            told.append(page.locator(".tip:visible").inner_text())
        assert any(f"{LABEL} · training step" in text for text in told)
        assert page.locator("script").count() == 1
        assert page.locator("img, #planted").count() == 0
