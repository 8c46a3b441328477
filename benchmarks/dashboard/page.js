// Only narrows what is shown: without it the whole page is there.
"use strict";
const form = document.querySelector(".filter");
const words = form.querySelector("input[type=search]");
const changed = form.querySelector("input[type=checkbox]");
const count = form.querySelector("output");
const rows = Array.from(document.querySelectorAll(".row"));
const text = new Map(rows.map((row) => [row, row.dataset.words.toLowerCase()]));

function narrow() {
  const wanted = words.value.toLowerCase().split(/\s+/).filter(Boolean);
  for (const row of rows) {
    row.hidden = !wanted.every((word) => text.get(row).includes(word)) || (changed.checked && !row.dataset.changed);
  }
  for (const part of document.querySelectorAll(".group, .subject")) {
    part.hidden = !part.querySelector(".row:not([hidden])");
  }
  for (const link of document.querySelectorAll("nav li a")) {
    const part = document.getElementById(link.hash.slice(1));
    link.parentElement.hidden = part.hidden;
  }
  const left = rows.filter((row) => !row.hidden).length;
  count.textContent = left === rows.length ? "" : `${left} of ${rows.length} shown`;
}

form.hidden = false;
form.addEventListener("input", narrow);
form.addEventListener("submit", (event) => event.preventDefault());
narrow();
