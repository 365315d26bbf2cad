// Everything here is a convenience: the page is complete without it, and whatever can be clicked is made here.
"use strict";
(() => {
  const root = document.documentElement;
  const all = (selector, from = document) => [...from.querySelectorAll(selector)];

  function make(tag, properties, ...children) {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(properties)) element.setAttribute(name, value);
    element.append(...children);
    return element;
  }

  // --- light or dark: as the system has it, until the reader chooses ---

  const KEY = "seqbench-theme";
  const system = matchMedia("(prefers-color-scheme: dark)");
  const isDark = () => (root.dataset.theme ? root.dataset.theme === "dark" : system.matches);

  function recallTheme() {
    try {
      const kept = localStorage.getItem(KEY);
      if (kept === "dark" || kept === "light") root.dataset.theme = kept;
    } catch { /* a page from disk may be refused a memory */ }
  }

  function addThemeSwitch(nav) {
    if (!CSS.supports("color", "light-dark(#000, #fff)")) return; // then the page is light
    const button = make("button", { type: "button", class: "control" }, "Dark");
    const show = () => button.setAttribute("aria-pressed", isDark());
    button.addEventListener("click", () => {
      root.dataset.theme = isDark() ? "light" : "dark";
      try { localStorage.setItem(KEY, root.dataset.theme); } catch { /* then for this time only */ }
      show();
    });
    system.addEventListener("change", show);
    show();
    nav.append(button);
  }

  // --- one task or all: the address says which, other addresses are places on the page ---

  function addTaskSwitch(nav) {
    const links = all("a[data-task]", nav);
    if (links.length < 2) return;
    const everything = make("a", { href: "#all", class: "control" }, "All tasks");
    links[0].closest("ul").prepend(make("li", {}, everything));
    const ids = links.map((link) => link.hash.slice(1));
    let shown = "all";
    const show = () => {
      const before = shown;
      const asked = location.hash.slice(1) || "all";
      if (asked === "all" || ids.includes(asked)) shown = asked;
      for (const id of ids) document.getElementById(id).hidden = shown !== "all" && shown !== id;
      for (const link of [everything, ...links]) {
        if (link.hash.slice(1) === shown) link.setAttribute("aria-current", "true");
        else link.removeAttribute("aria-current");
      }
      fitWindow();
      return shown !== before;
    };
    addEventListener("hashchange", () => {
      // the browser went there while the task was still hidden: nowhere
      if (show()) document.getElementById(shown)?.scrollIntoView();
    });
    show();
  }

  // --- tables: where the first cell of a row is empty, rows belong together and stay as they are ---

  const isList = (table) =>
    table.tHead && table.tBodies.length && [...table.tBodies[0].rows].every((row) => row.cells[0]?.textContent.trim());

  // --- sorting: rows without a value stay behind, reference rows below all others ---

  const NUMBER = /^[<(]?\s*([+-]?(?:\d[\d,]*(?:\.\d+)?(?:e[+-]?\d+)?|∞))\s*([kMGTP]?)!?(?:\s*±\s*[\d.e+-]+)?\)?(e[+-]?\d+)?(?: %)?$/;
  const SCALE = { "": 1, k: 1e3, M: 1e6, G: 1e9, T: 1e12, P: 1e15 };
  const words = new Intl.Collator("en", { numeric: true });

  function toNumber(text) {
    const found = NUMBER.exec(text);
    if (!found) return NaN;
    const digits = found[1].replaceAll(",", "").replace("∞", "Infinity");
    return Number(digits + (found[3] ?? "")) * SCALE[found[2]];
  }

  function valuesOf(cells) {
    const texts = cells.map((cell) => cell?.dataset.value ?? cell?.textContent.trim() ?? "");
    const missing = texts.map((text) => text === "" || text === "–");
    const numbers = texts.map((text) => toNumber(text));
    const numeric = numbers.every((number, n) => missing[n] || !Number.isNaN(number));
    return texts.map((text, n) => (missing[n] ? null : numeric ? numbers[n] : text));
  }

  function sortBy(body, original, column, direction) {
    const movable = original.filter((row) => !row.classList.contains("reference"));
    const values = new Map();
    valuesOf(movable.map((row) => row.cells[column])).forEach((value, n) => values.set(movable[n], value));
    const compare = (a, b) => {
      const [x, y] = [values.get(a), values.get(b)];
      if (x === null || y === null) return (x === null) - (y === null);
      return direction * (typeof x === "number" ? Math.sign(x - y) || 0 : words.compare(x, y));
    };
    if (direction) movable.sort(compare);
    body.append(...movable, ...original.filter((row) => row.classList.contains("reference")));
  }

  function addSorting(table) {
    const [body] = table.tBodies;
    const heads = [...table.tHead.rows[0].cells];
    const original = [...body.rows];
    if (original.length < 2) return;
    heads.forEach((head, column) => {
      if (!head.textContent.trim()) return;
      const button = make("button", { type: "button", class: "sort" }, ...head.childNodes);
      head.append(button);
      button.addEventListener("click", () => {
        const before = head.getAttribute("aria-sort");
        const next = before === null ? "ascending" : before === "ascending" ? "descending" : null;
        for (const other of heads) other.removeAttribute("aria-sort");
        if (next) head.setAttribute("aria-sort", next);
        sortBy(body, original, column, { ascending: 1, descending: -1 }[next] ?? 0);
      });
    });
  }

  // --- filtering: a row stays if it has every word ---

  const LONG = 8, LONG_BOARD = 3;

  function addFilter(table) {
    const rows = [...table.tBodies[0].rows].filter((row) => !row.classList.contains("reference"));
    if (rows.length <= (table.classList.contains("board") ? LONG_BOARD : LONG)) return;
    const input = make("input", { type: "search", autocomplete: "off", spellcheck: "false" });
    const count = make("output", {});
    input.addEventListener("input", () => {
      const wanted = input.value.toLowerCase().split(/\s+/).filter(Boolean);
      for (const row of rows) row.hidden = !wanted.every((word) => row.textContent.toLowerCase().includes(word));
      const left = rows.filter((row) => !row.hidden).length;
      count.textContent = wanted.length ? `${left} of ${rows.length} rows` : "";
    });
    const label = make("label", {}, "Filter rows ", input);
    table.closest(".scroll").before(make("div", { class: "control filter" }, label, count));
  }

  // --- the value of the nearest point of a figure, by pointer or by arrow keys ---

  const NEAR = 60; // pixels
  const within = (value, low, high) => Math.min(Math.max(value, low), Math.max(low, high));

  function addReadings(plot) {
    const { x, y, rows } = JSON.parse(plot.dataset.points);
    const points = rows.flatMap(([name, colour, found], row) =>
      found.map(([left, top, xv, yv], n) => ({ name, colour, left, top, xv, yv, row, n })));
    if (!points.length) return;
    const ring = make("span", { class: "ring", "aria-hidden": "true", hidden: "" });
    const sign = make("i", { "aria-hidden": "true" }, "● ");
    const said = make("span", {});
    const tip = make("div", { class: "tip", "aria-live": "polite", hidden: "" }, sign, said);
    plot.parentNode.append(ring, tip);
    let now = null;

    const at = (point) => { // in pixels of the figure
      const svg = plot.querySelector("svg").getBoundingClientRect();
      const frame = plot.parentNode.getBoundingClientRect();
      return [svg.left - frame.left + point.left * svg.width, svg.top - frame.top + point.top * svg.height];
    };
    const hide = () => { now = null; ring.hidden = tip.hidden = true; };
    const show = (point) => {
      now = point;
      ring.hidden = tip.hidden = false;
      ring.style.borderColor = sign.style.color = point.colour;
      said.textContent = `${point.name} · ${x} ${point.xv} · ${y} ${point.yv}`;
      const [left, top] = at(point);
      Object.assign(ring.style, { left: `${left}px`, top: `${top}px` });
      const above = top - tip.offsetHeight - 12;
      Object.assign(tip.style, {
        left: `${within(left - tip.offsetWidth / 2, 0, plot.parentNode.clientWidth - tip.offsetWidth)}px`,
        top: `${above < 0 ? top + 14 : above}px`,
      });
    };
    const point = (event) => {
      const frame = plot.parentNode.getBoundingClientRect();
      const distance = (one) => {
        const [left, top] = at(one);
        return Math.hypot(left - (event.clientX - frame.left), top - (event.clientY - frame.top));
      };
      let [best, least] = [null, NEAR];
      for (const one of points) {
        const far = distance(one);
        if (far < least) [best, least] = [one, far];
      }
      if (best) show(best); else hide();
    };
    const STEPS = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] };
    const used = [...new Set(points.map((one) => one.row))];
    const key = (event) => {
      if (event.key === "Escape") return hide();
      if (!(event.key in STEPS)) return;
      event.preventDefault();
      const [rowStep, pointStep] = STEPS[event.key];
      if (!now) return show(points[0]);
      const row = used[within(used.indexOf(now.row) + rowStep, 0, used.length - 1)];
      const same = points.filter((one) => one.row === row);
      show(same[within(now.n + pointStep, 0, same.length - 1)]);
    };
    plot.tabIndex = 0;
    plot.setAttribute("aria-label", `${plot.getAttribute("aria-label")}; arrow keys read the values`);
    plot.addEventListener("pointermove", point);
    plot.addEventListener("pointerdown", point);
    plot.addEventListener("pointerleave", (event) => { if (event.pointerType === "mouse") hide(); });
    plot.addEventListener("keydown", key);
    plot.addEventListener("blur", hide);
  }

  // --- what scrolls can be reached by the keyboard; headings come to stand below the list of contents ---

  function fitWindow() {
    for (const box of all("nav ul, .scroll, pre, .plot:not([data-points])")) {
      if (box.scrollWidth > box.clientWidth || box.scrollHeight > box.clientHeight) box.tabIndex = 0;
      else box.removeAttribute("tabindex");
    }
    root.style.setProperty("--nav", `${document.querySelector("nav").offsetHeight}px`);
  }

  recallTheme();
  document.addEventListener("DOMContentLoaded", () => {
    const nav = document.querySelector("nav");
    addTaskSwitch(nav);
    addThemeSwitch(nav);
    for (const table of all("table").filter(isList)) {
      addFilter(table);
      addSorting(table);
    }
    all(".plot[data-points]").forEach(addReadings);
    fitWindow();
    addEventListener("resize", fitWindow);
    document.addEventListener("toggle", fitWindow, true);
  });
})();
