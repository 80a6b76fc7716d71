// Samples: a click on one shows where its chain began, its steps, and what is nearest to it.
const look = make("dialog", { className: "look", ariaLabel: "Sample" });
document.body.append(look);
const TITLES = ["initial image", "sample", "nearest training image"];
const inspect = (picture, row, column) => {
  const cells = JSON.parse(picture.dataset.samples);
  const at = ({ across, down, beside }, panel, r, c) => [
    80 + panel * beside + c * across,
    16 + r * down,
  ];
  const cellOf = (label, source, place) => canvas(label, 32, 32, cut(source, ...place, 32, 32));
  const parts = TITLES.slice(0, cells.panels).map((title, panel) =>
    cellOf(title, picture, at(cells, panel, row, column)),
  );
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
  look.replaceChildren(close, make("h2", {}, `Sample in row ${row + 1}, column ${column + 1}`));
  look.append(make("div", { className: "one" }, ...parts));
  if (chains && chain < chains.rows) {
    const labels = [...Array(chains.columns).keys()];
    const shown = labels.map((n) => cellOf(String(n + 1), steps, at(chains, 0, chain, n)));
    look.append(make("h3", {}, "Its chain, from left to right"));
    look.append(make("div", { className: "one small" }, ...shown));
  } else look.append(make("p", {}, "The steps of its chain were not kept."));
  look.append(make("p", { className: "moves" }, ...moves));
  if (!look.open) look.showModal();
};
document.addEventListener("click", (event) => {
  const picture = event.target.closest("img[data-samples]");
  if (!picture) return;
  const cells = JSON.parse(picture.dataset.samples);
  const scale = picture.naturalWidth / picture.clientWidth;
  const [x, y] = [event.offsetX * scale - 80, event.offsetY * scale - 16];
  const column = Math.floor((x % cells.beside) / cells.across);
  const row = Math.floor(y / cells.down);
  if (x >= 0 && row >= 0 && row < cells.rows && column < cells.columns) {
    inspect(picture, row, column);
  }
});
document.addEventListener("keydown", (event) => {
  const picture = event.target.closest?.("img[data-samples]");
  if (!picture || event.key !== "Enter") return;
  event.preventDefault(); // or the button that gets the focus is pressed
  inspect(picture, 0, 0);
});
for (const picture of all("img[data-samples]")) picture.tabIndex = 0;
look.addEventListener("click", (event) => event.target === look && look.close());
