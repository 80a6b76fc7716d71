// Details: the address of the page says which run is open, so the back button closes it.
const opened = () => document.querySelector("dialog[id][open]");
const illustrate = (dialog) => {
  const place = dialog.querySelector("[data-pictures]");
  if (place.childElementCount) return;
  const pictures = all("main figure[data-run]").filter((one) => one.dataset.run === dialog.id);
  const copies = pictures.map((one) => one.cloneNode(true));
  for (const copy of copies) copy.hidden = false;
  place.append(...copies);
};
const follow = () => {
  const [place, query] = address();
  if (query !== undefined) {
    for (const name of [...state.keys()]) state.delete(name);
    for (const [name, value] of new URLSearchParams(query)) state.set(name, value);
    restore();
  } else if (String(state)) write(); // a link of the page keeps what is hidden
  const wanted = document.getElementById(place);
  if (opened() && opened() !== wanted) opened().close();
  if (!(wanted instanceof HTMLDialogElement)) {
    if (query !== undefined) wanted?.scrollIntoView();
    return;
  }
  if (wanted.open) return;
  illustrate(wanted);
  wanted.showModal();
  wanted.scrollTop = 0;
  explore(wanted.id);
  mark();
};
const restore = () => {
  if (filter) filter.value = state.get("filter") ?? "";
  for (const one of kept("sort")) {
    const [number, column, direction] = one.split(".").map(Number);
    const head = heads[number]?.[column];
    if (head?.querySelector("button")) sort(head, direction);
  }
  hideColumns();
  gone = hide();
};
for (const row of all("tr[data-run]")) {
  row.addEventListener("click", (event) => {
    if (event.target.closest("a, button") || String(getSelection())) return;
    const link = row.querySelector("th a");
    link.focus({ preventScroll: true }); // where it returns to
    link.click();
  });
}
let origin; // where the focus was, which following a link of the page takes away
document.addEventListener("focusin", ({ target }) => {
  if (target.closest("main")) origin = target;
});
for (const dialog of all("dialog[id]")) {
  dialog.addEventListener("close", () => {
    if (address()[0] === dialog.id) write("");
    origin?.focus({ preventScroll: true });
  });
  dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());
  dialog.querySelector(".close").addEventListener("click", () => dialog.close());
}
addEventListener("hashchange", follow);
follow();
mark();
