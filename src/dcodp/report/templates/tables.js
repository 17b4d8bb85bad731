// Long tables are sorted by their headers and filtered by a text field. Everything is made here: without JavaScript the
// tables stand as they were written.
"use strict";
const LONG = 5; // rows from which on it helps
const NEXT = { none: "ascending", ascending: "descending", descending: "none" }; // none: as written

const text = (cell) => (cell.querySelector("summary") ?? cell).textContent.trim();
// Of a row in a column: a number ("38.0 ± 0.2" is 38), words, or null where there is nothing, "missing" or "—".
const key = (row, column, words) => {
  const shown = text(row.cells[column]);
  if (!words) return Number.isNaN(parseFloat(shown)) ? null : parseFloat(shown);
  return shown === "" || shown === "—" ? null : shown;
};
const compare = (a, b) => (typeof a === "number" ? a - b : a.localeCompare(b, "en", { numeric: true }));

function sort(table, head, rows) {
  const order = NEXT[head.getAttribute("aria-sort")], sign = order === "descending" ? -1 : 1;
  const words = head.classList.contains("text") && !head.classList.contains("count");
  const keyed = rows.map((row) => [key(row, head.cellIndex, words), row]);
  if (order !== "none")
    keyed.sort(([a], [b]) => (a === null || b === null ? (a === null) - (b === null) : sign * compare(a, b)));
  table.tBodies[0].append(...keyed.map(([, row]) => row));
  for (const other of table.tHead.rows[0].cells) other.setAttribute("aria-sort", other === head ? order : "none");
}

function sortable(table, rows) {
  for (const head of table.tHead.rows[0].cells) {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    button.addEventListener("click", () => sort(table, head, rows));
    head.append(button);
    head.setAttribute("aria-sort", "none");
  }
}

// Rows stay whose cells hold every word; what opens in a cell does not count.
function filter(rows, wanted, told) {
  const words = wanted.toLowerCase().split(/\s+/);
  for (const row of rows) {
    const shown = [...row.cells].map(text).join(" ").toLowerCase();
    row.hidden = !words.every((word) => shown.includes(word));
  }
  const left = rows.filter((row) => !row.hidden).length;
  told.textContent = left < rows.length ? `${left} of ${rows.length} rows` : "";
}

function filterable(table, rows) {
  const box = table.closest(".scroll"), line = document.createElement("p");
  const label = document.createElement("label"), field = document.createElement("input");
  const told = document.createElement("span");
  line.className = "filter";
  field.type = "search";
  field.setAttribute("aria-label", `Rows with (${box.getAttribute("aria-label")})`);
  told.setAttribute("role", "status");
  field.addEventListener("input", () => filter(rows, field.value, told));
  label.append("Rows with ", field);
  line.append(label, " ", told);
  box.before(line);
}

for (const table of document.querySelectorAll("table.sortable")) {
  const rows = [...table.tBodies[0].rows];
  if (rows.length < LONG) continue;
  sortable(table, rows);
  filterable(table, rows);
}
