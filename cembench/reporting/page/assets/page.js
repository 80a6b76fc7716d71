"use strict";
(() => {
  const all = (chosen, root = document) => [...root.querySelectorAll(chosen)];

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

  for (const button of all("thead button")) {
    const head = button.parentNode;
    button.addEventListener("click", () => {
      const first = button.textContent.trim().endsWith("↑") ? -1 : 1;
      const now = { ascending: 1, descending: -1 }[head.ariaSort];
      sort(head, now ? -now : first);
    });
  }

  // Filtering: rows that hold every word, in all leaderboards at once.
  const filter = document.getElementById("filter");
  filter.addEventListener("input", () => {
    const words = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
    const rows = all(".board tbody tr");
    for (const row of rows) {
      const text = row.textContent.toLowerCase();
      row.hidden = !words.every((word) => text.includes(word));
    }
    for (const board of all(".board")) {
      board.hidden = all("tbody tr", board).every((row) => row.hidden);
    }
    const left = rows.filter((row) => !row.hidden).length;
    const told = document.getElementById("matches");
    told.textContent = words.length ? `${left} of ${rows.length} rows` : "";
  });

  // Details: the address of the page says which run is open, so the back button closes it.
  const opened = () => document.querySelector("dialog[open]");
  const illustrate = (dialog) => {
    const place = dialog.querySelector("[data-pictures]");
    if (place.childElementCount) return;
    const pictures = all("main figure[data-run]").filter((one) => one.dataset.run === dialog.id);
    place.append(...pictures.map((one) => one.cloneNode(true)));
  };
  const follow = () => {
    const wanted = document.getElementById(location.hash.slice(1));
    if (opened() && opened() !== wanted) opened().close();
    if (!(wanted instanceof HTMLDialogElement) || wanted.open) return;
    illustrate(wanted);
    wanted.showModal();
    wanted.scrollTop = 0;
  };
  const leave = () => history.replaceState(null, "", location.pathname + location.search);

  for (const row of all("tr[data-run]")) {
    row.addEventListener("click", (event) => {
      if (event.target.closest("a, button") || String(getSelection())) return;
      location.hash = row.dataset.run;
    });
  }
  for (const dialog of all("dialog")) {
    dialog.addEventListener("close", () => location.hash === `#${dialog.id}` && leave());
    dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());
    dialog.querySelector(".close").addEventListener("click", () => dialog.close());
  }
  addEventListener("hashchange", follow);
  follow();

  // Light or dark: as the system has it until somebody says otherwise.
  const theme = document.getElementById("theme");
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const tell = () => {
    const chosen = document.documentElement.dataset.theme;
    theme.ariaPressed = String(chosen ? chosen === "dark" : dark.matches);
  };
  theme.addEventListener("click", () => {
    document.documentElement.dataset.theme = theme.ariaPressed === "true" ? "light" : "dark";
    tell();
  });
  dark.addEventListener("change", tell);
  tell();
})();
