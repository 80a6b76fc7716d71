// Samples: a click on one shows where its chain began, its steps, and what is nearest to it; one
// on a counterfactual the image that it was.
const look = make("dialog", { className: "look", ariaLabel: "Sample" });
document.body.append(look);
const inspect = (picture, row, column) => {
  const cells = JSON.parse(picture.dataset.samples);
  const cellOf = (label, source, { origins, across, down, side }, panel, r, c) => {
    const [left, top] = origins[panel];
    const place = [left + c * across, top + r * down];
    return canvas(label, side, side, cut(source, ...place, side, side));
  };
  const parts = cells.titles.map((title, panel) => cellOf(title, picture, cells, panel, row, column));
  const steps = picture.closest("figure").querySelector("img[data-chains]");
  const chains = steps && JSON.parse(steps.dataset.chains);
  const intended = "intended" in picture.dataset;
  const chain = intended ? row + column * cells.rows : row * cells.columns + column;
  const close = make("button", { type: "button", className: "close", ariaLabel: "Close" }, "×");
  close.addEventListener("click", () => look.close());
  const move = (words, r, c) => {
    const button = make("button", { type: "button" }, words);
    button.disabled = r < 0 || r >= cells.rows || c < 0 || c >= cells.columns;
    button.addEventListener("click", () => inspect(picture, r, c));
    return button;
  };
  const moves = [
    move("← left", row, column - 1),
    move("right →", row, column + 1),
    move("↑ up", row - 1, column),
    move("↓ down", row + 1, column),
  ];
  look.replaceChildren(close, make("h2", {}, `${cells.titles[1] ?? "sample"} in row ${row + 1}, column ${column + 1}`));
  look.append(make("div", { className: "one" }, ...parts));
  if (chains && chain < chains.rows) {
    const labels = [...Array(chains.columns).keys()];
    const shown = labels.map((n) => cellOf(String(n + 1), steps, chains, 0, chain, n));
    look.append(make("h3", {}, "Its chain, from left to right"));
    look.append(make("div", { className: "one small" }, ...shown));
  } else if (cells.titles[1] === "sample") {
    look.append(make("p", {}, "The steps of its chain were not kept."));
  }
  look.append(make("p", { className: "moves" }, ...moves));
  if (!look.open) look.showModal();
};
document.addEventListener("click", (event) => {
  const picture = event.target.closest("img[data-samples]");
  if (!picture) return;
  const cells = JSON.parse(picture.dataset.samples);
  const scale = picture.naturalWidth / picture.clientWidth;
  for (const [left, top] of cells.origins) {
    const column = Math.floor((event.offsetX * scale - left) / cells.across);
    const row = Math.floor((event.offsetY * scale - top) / cells.down);
    if (row >= 0 && row < cells.rows && column >= 0 && column < cells.columns) {
      inspect(picture, row, column);
      return;
    }
  }
});
document.addEventListener("keydown", (event) => {
  const picture = event.target.closest?.("img[data-samples]");
  if (!picture || ![" ", "Enter"].includes(event.key)) return;
  event.preventDefault(); // or the button that gets the focus is pressed
  inspect(picture, 0, 0);
});
for (const picture of all("img[data-samples]")) Object.assign(picture, { tabIndex: 0, role: "button" });
look.addEventListener("keydown", (event) => {
  const place = ["ArrowLeft", "ArrowRight", "ArrowUp", "ArrowDown"].indexOf(event.key);
  if (place < 0) return;
  event.preventDefault();
  all(".moves button", look)[place].click();
});
look.addEventListener("click", (event) => event.target === look && look.close());
