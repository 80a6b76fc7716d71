const all = (chosen, root = document) => [...root.querySelectorAll(chosen)];
const make = (tag, values = {}, ...content) => {
  const made = Object.assign(document.createElement(tag), values);
  made.append(...content);
  return made;
};

// State: what is hidden and chosen stands in the address, behind the place and a "?".
const state = new URLSearchParams();
const address = () => location.hash.slice(1).split("?");
const write = (place = address()[0]) => {
  const query = String(state);
  const hash = place + (query && `?${query}`);
  history.replaceState(null, "", hash ? `#${hash}` : location.pathname + location.search);
};
const keep = (name, value) => {
  if (value) state.set(name, value);
  else state.delete(name);
  write();
};
const kept = (name) => (state.get(name) ?? "").split("~").filter(Boolean);
const toggle = (name, value, on) =>
  keep(name, [...kept(name).filter((one) => one !== value), ...(on ? [value] : [])].join("~"));

// Sorting: by the number behind a cell, else by its text; what has none comes last both ways.
const key = (cell) =>
  cell.dataset.number === undefined ? cell.textContent.trim() : Number(cell.dataset.number);
const missing = (value) => value === "" || Number.isNaN(value);
const compare = (a, b) =>
  typeof a === "number" && typeof b === "number"
    ? a - b
    : String(a).localeCompare(String(b), undefined, { numeric: true });
const sort = (head, direction) => {
  const body = head.closest("table").tBodies[0];
  const rows = [...body.rows].map((row) => [key(row.cells[head.cellIndex]), row]);
  rows.sort(([a], [b]) =>
    missing(a) || missing(b) ? missing(a) - missing(b) : direction * compare(a, b),
  );
  body.append(...rows.map(([, row]) => row));
  for (const other of head.parentNode.cells) other.ariaSort = "none";
  head.ariaSort = direction > 0 ? "ascending" : "descending";
};

const boards = all(".board");
const heads = boards.map((board) => all("thead th", board));
boards.forEach((board, number) => {
  for (const button of all("thead button", board)) {
    const head = button.parentNode;
    button.addEventListener("click", () => {
      const first = button.textContent.trim().endsWith("↑") ? -1 : 1;
      const now = { ascending: 1, descending: -1 }[head.ariaSort];
      const direction = now ? -now : first;
      sort(head, direction);
      const others = kept("sort").filter((one) => !one.startsWith(`${number}.`));
      keep("sort", [...others, `${number}.${head.cellIndex}.${direction}`].join("~"));
    });
  }
});

// Columns: each but the first can be hidden.
const columns = boards.map((board, number) => {
  const boxes = heads[number].slice(1).map((head) => {
    const box = make("input", { type: "checkbox", checked: true });
    const column = `${number}.${head.cellIndex}`;
    box.addEventListener("change", () => {
      toggle("columns", column, !box.checked);
      hideColumns();
    });
    return make("label", {}, box, head.textContent.trim());
  });
  const chooser = make("details", { className: "columns" }, make("summary", {}, "Columns"));
  chooser.append(make("div", {}, ...boxes));
  board.querySelector("figcaption").append(make("div", { className: "bar" }, chooser));
  return boxes.map((label) => label.firstChild);
});
const hideColumns = () => {
  const hidden = new Set(kept("columns"));
  boards.forEach((board, number) => {
    const off = heads[number].map((head) => hidden.has(`${number}.${head.cellIndex}`));
    columns[number].forEach((box, place) => (box.checked = !off[place + 1]));
    for (const row of all("tr", board)) {
      off.forEach((one, place) => row.cells[place] && (row.cells[place].hidden = one));
    }
  });
  mark();
};

const choosers = all(".board .columns");
document.addEventListener("click", (event) => {
  for (const one of choosers) one.open &&= one.contains(event.target);
});
document.addEventListener("keydown", (event) => {
  const one = choosers.find((chooser) => chooser.contains(event.target));
  if (event.key !== "Escape" || !one?.open) return;
  one.open = false;
  one.firstChild.focus();
});

// What goes on beyond the right edge has a sign there.
const boxes = all(".scroll");
const mark = () => {
  for (const box of boxes) {
    const more = box.scrollWidth - box.clientWidth - box.scrollLeft > 2;
    box.parentNode.classList.toggle("more", more);
    if (more) box.parentNode.style.setProperty("--top", `${box.offsetTop}px`);
  }
};
for (const box of boxes) box.addEventListener("scroll", mark, { passive: true });
addEventListener("resize", mark);

// Hiding: rows without a word of the filter; runs by the legend, or when all their rows are.
const filter = document.getElementById("filter");
const hide = () => {
  const words = (filter?.value ?? "").toLowerCase().split(/\s+/).filter(Boolean);
  const rows = all(".board tbody tr");
  for (const row of rows) {
    const text = row.textContent.toLowerCase();
    row.hidden = !words.every((word) => text.includes(word));
  }
  for (const board of boards) {
    board.hidden = words.length > 0 && all("tbody tr", board).every((row) => row.hidden);
  }
  const left = rows.filter((row) => !row.hidden);
  const told = document.getElementById("matches");
  const found = left.length ? `${left.length} of ${rows.length} rows` : "nothing found";
  if (told) told.textContent = words.length ? found : "";
  document.querySelector("main").classList.toggle("nothing", rows.length > 0 && !left.length);
  const links = (some) => some.flatMap((row) => all("a", row)).map((a) => a.hash.slice(1));
  const shown = new Set(links(left));
  const off = new Set(kept("hide"));
  const gone = new Set([...links(rows).filter((run) => !shown.has(run)), ...off]);
  for (const part of all("[data-of]")) part.classList.toggle("off", gone.has(part.dataset.of));
  for (const card of all("main figure[data-run]")) card.hidden = gone.has(card.dataset.run);
  for (const one of all("[data-hides]")) one.ariaPressed = String(!gone.has(one.dataset.hides));
  mark();
  return gone;
};
let gone = new Set();
filter?.addEventListener("input", () => {
  keep("filter", filter.value);
  gone = hide();
});
for (const entry of all("[data-hides]")) {
  entry.addEventListener("click", () => {
    toggle("hide", entry.dataset.hides, !kept("hide").includes(entry.dataset.hides));
    gone = hide();
  });
}
