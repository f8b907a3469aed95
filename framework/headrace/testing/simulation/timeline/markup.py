"""The page of a run without what is in it: its frame, its looks and its script."""

from __future__ import annotations

from string import Template
from typing import Final

_STYLE: Final = """
:root {
  color-scheme: light dark;
  --page: #fff; --text: #1b1f24; --faint: #656d76; --line: #d8dee4; --box: #f6f8fa;
  --sent: #0a7ea4; --received: #2f5fd0; --written: #1a7f37; --settled: #8250df;
  --log: #8c959f; --process: #8c959f; --fault: #cf222e; --faulty: #ffebe9;
}
@media (prefers-color-scheme: dark) {
  :root {
    --page: #0d1117; --text: #e6edf3; --faint: #9198a1; --line: #30363d; --box: #161b22;
    --sent: #39c5cf; --received: #79a8ff; --written: #3fb950; --settled: #bc8cff;
    --log: #6e7681; --process: #6e7681; --fault: #ff7b72; --faulty: #3c1418;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0; padding: 1rem; width: max-content; min-width: 100%;
  background: var(--page); color: var(--text); font: 14px/1.4 system-ui, sans-serif;
}
.top { position: sticky; left: 1rem; max-width: calc(100vw - 3rem); }
h1 { margin: 0 0 .5rem; font-size: 1.4rem; }
h2 { margin: 0; font-size: 1.1rem; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .1rem 1rem; margin: 0 0 1rem; }
dt { color: var(--faint); }
dd { margin: 0; }
pre { margin: .4rem 0; white-space: pre-wrap; overflow-wrap: anywhere; }
section.violation {
  margin: 0 0 1rem; padding: .7rem 1rem; background: var(--faulty);
  border: 2px solid var(--fault); border-radius: 6px;
}
section.violation h2, tr.violation a { color: var(--fault); }
form { margin: 0 0 1rem; }
input { font: inherit; padding: .2rem .5rem; width: 22rem; max-width: 100%; }
caption { text-align: left; color: var(--faint); padding-bottom: .3rem; }
table { border-collapse: collapse; margin-bottom: 1rem; }
th { text-align: left; font-weight: 600; }
thead th { position: sticky; top: 0; z-index: 1; background: var(--page); padding: .3rem .4rem; }
thead th:first-child { left: 0; z-index: 2; }
td, tbody th { vertical-align: top; padding: .1rem .4rem; border-left: 1px solid var(--line); }
td { min-width: 9rem; max-width: 16rem; }
tbody th {
  position: sticky; left: 0; background: var(--page); border-left: 0; text-align: right;
  font: 12px/1.7 ui-monospace, monospace; color: var(--faint); font-variant-numeric: tabular-nums;
}
.box {
  padding: .1rem .4rem; margin: .1rem 0; background: var(--box); border-radius: 4px;
  border-left: 4px solid var(--log); overflow-wrap: anywhere;
}
.sent { border-color: var(--sent); }
.received { border-color: var(--received); }
.written { border-color: var(--written); }
.read { border-color: var(--line); color: var(--faint); }
.settled { border-color: var(--settled); }
.process { border-color: var(--process); }
.log, .process, .bookkeeping .box { color: var(--faint); }
.fault { border-color: var(--fault); background: var(--faulty); }
.fault strong { color: var(--fault); }
.gap td { max-width: none; border: 0; padding: .5rem .4rem; color: var(--faint); }
.gap td, .violation td { border-block: 1px dashed var(--line); }
.gap span, .violation span { position: sticky; left: 1rem; }
.violation td { max-width: none; padding: .6rem .4rem; background: var(--faulty); }
.violation a { font-weight: 600; }
[data-about] { cursor: pointer; }
.following .box { opacity: .35; }
.following .box.fault { opacity: .7; }
.following .box.story { opacity: .8; }
.following .box.same { opacity: 1; outline: 2px solid currentColor; }
[hidden] { display: none; }
"""

_SCRIPT: Final = """
(() => {
  "use strict";
  const main = document.querySelector("main");
  const boxes = [...main.querySelectorAll("[data-about]")];
  const idsOf = (box) => box.dataset.about.split(" ");
  let pinned = null;

  function follow(box) {
    const ids = new Set(box ? idsOf(box) : []);
    main.classList.toggle("following", box !== null);
    for (const other of boxes) {
      const story = box !== null && other.dataset.story !== ""
        && other.dataset.story === box.dataset.story;
      other.classList.toggle("story", story);
      other.classList.toggle("same", idsOf(other).some((id) => ids.has(id)));
    }
  }

  function pin(box) {
    if (pinned) pinned.setAttribute("aria-pressed", "false");
    pinned = pinned === box ? null : box;
    if (pinned) pinned.setAttribute("aria-pressed", "true");
    follow(pinned);
  }

  for (const box of boxes) {
    box.tabIndex = 0;
    box.setAttribute("role", "button");
    box.setAttribute("aria-pressed", "false");
    box.addEventListener("click", () => pin(box));
    box.addEventListener("mouseenter", () => { if (!pinned) follow(box); });
    box.addEventListener("mouseleave", () => { if (!pinned) follow(null); });
    box.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" && event.key !== " ") return;
      event.preventDefault();
      pin(box);
    });
  }
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && pinned) pin(pinned);
  });

  const form = document.querySelector("form");
  const heads = [...main.querySelectorAll("thead th")].map((head) => head.textContent);
  const rows = [...main.querySelectorAll("tbody tr")].map((row) => [row, said(row)]);

  function said(row) {
    const cells = [...row.cells];
    const lanes = cells.map((cell, place) => (cell.textContent ? heads[place] : ""));
    return [...cells.map((cell) => cell.textContent), ...lanes].join(" ").toLowerCase();
  }

  function filter() {
    const words = form.elements.words.value.toLowerCase().split(" ").filter(Boolean);
    let shown = 0;
    for (const [row, text] of rows) {
      const isKept = row.className === "violation" || (row.className === "gap"
        ? words.length === 0 : words.every((word) => text.includes(word)));
      row.hidden = !isKept;
      shown += isKept && row.cells.length > 1 ? 1 : 0;
    }
    form.elements.count.value = words.length ? `${shown} shown` : "";
  }

  form.hidden = rows.length === 0;
  form.addEventListener("input", filter);
  form.addEventListener("submit", (event) => event.preventDefault());
})();
"""

_FRAME: Final = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'">
<title>$title</title>
<style>STYLE</style>
</head>
<body>
<div class="top">
<h1>$title</h1>
<dl>$facts</dl>
$verdict
<form hidden>
<label>Show only rows with <input type="search" name="words"></label>
<output name="count"></output>
<p>Choose an event to follow it; Escape ends that.</p>
</form>
</div>
<main>$table</main>
$names
<script>SCRIPT</script>
</body>
</html>
"""

PAGE: Final = Template(
    _FRAME.replace("STYLE", _STYLE).replace("SCRIPT", _SCRIPT.replace("$", "$$"))
)
"""Takes `title`, `facts`, `verdict`, `table` and `names`: all HTML."""
