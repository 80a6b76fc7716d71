// Images are drawn from one sheet, pixel by pixel.
const canvas = (label, width, height, draw) => {
  const made = make("canvas", { width, height, role: "img", ariaLabel: label });
  draw(made.getContext("2d"));
  return make("figure", {}, made, make("figcaption", {}, label));
};
const cut = (picture, x, y, width, height) => (pen) =>
  pen.drawImage(picture, x, y, width, height, 0, 0, width, height);

// Images of a run: clean, adversarial, their difference; two runs on the same image.
const sheets = new Map();
const elsewhere = new Map(); // runs on other pages, and what brings their sheets here
const sheetOf = (facts, picture, place) => {
  const known = new Map(facts.images.map((image) => [image[0], image]));
  return { ...facts, picture, known, place };
};
for (const place of all(".images")) {
  const sheet = sheetOf(JSON.parse(place.dataset.images), place.querySelector("img"), place);
  sheets.set(place.closest("dialog, main").id, sheet);
}
const figure = (value) => (value === null ? "–" : String(Number(value.toPrecision(4))));
const verdict = ([, label, predicted, , ...found], attack) => {
  if (label !== predicted) return "misclassified";
  const some = attack < 0 ? found.some(Boolean) : found[attack];
  return some ? "broken" : "survives";
};
const part = (sheet, number) => {
  const [width, height] = sheet.size;
  const across = (number % sheet.columns) * width;
  return cut(sheet.picture, across, Math.floor(number / sheet.columns) * height, width, height);
};
const cell = (sheet, number, label) => canvas(label, ...sheet.size, part(sheet, number));
// Differences are drawn by adding and inverting alone: pixels of a file cannot be read back.
const invert = (pen) => {
  pen.globalCompositeOperation = "difference";
  pen.fillStyle = "#fff";
  pen.fillRect(0, 0, pen.canvas.width, pen.canvas.height);
  pen.globalCompositeOperation = "lighter";
};
const minus = (pen, draw) => {
  invert(pen);
  draw(pen);
  invert(pen);
};
const rest = (size, draw, other, factor) => {
  const [width, height] = size;
  const pen = make("canvas", { width, height }).getContext("2d");
  draw(pen);
  minus(pen, other);
  for (let k = 1; k < factor; k *= 2) pen.drawImage(pen.canvas, 0, 0);
  return (on) => on.drawImage(pen.canvas, 0, 0);
};
const difference = (sheet, clean, other, factor) => {
  const [before, after] = [part(sheet, clean), part(sheet, other)];
  return canvas(`difference ×${factor}`, ...sheet.size, (pen) => {
    pen.fillStyle = "#808080";
    pen.fillRect(0, 0, pen.canvas.width, pen.canvas.height);
    pen.globalCompositeOperation = "lighter";
    rest(sheet.size, after, before, factor)(pen);
    minus(pen, rest(sheet.size, before, after, factor));
  });
};
const answer = (sheet, predicted, lse) => `${sheet.classes[predicted]}, log p ${figure(lse)}`;
const line = (sheet, image, attack) => {
  const place = sheet.images.indexOf(image);
  const [, , predicted, lse, ...found] = image;
  const which = attack < 0 ? found.findIndex(Boolean) : attack;
  const parts = [cell(sheet, place, `clean: ${answer(sheet, predicted, lse)}`)];
  const adversarial = found[which];
  let words = verdict(image, attack);
  if (adversarial) {
    const [number, stage, shown, after, norm, linf, l2, bytes] = adversarial;
    const title = sheet.attacks[which];
    const of = stage && !title.endsWith(stage) ? `${title} (${stage})` : title;
    const norms = { linf, l2, [sheet.norms[which]]: norm };
    const sizes = Object.entries(norms).map(([one, size]) => `${one} ${figure(size)}`);
    parts.push(cell(sheet, number, `adversarial: ${answer(sheet, shown, after)}`));
    parts.push(difference(sheet, place, number, sheet.factors[which]));
    words = `${of} succeeds, ${sizes.join(", ")}${bytes ? "" : "; not as 8-bit image"}`;
  }
  return make("div", { className: `one ${verdict(image, attack)}` }, ...parts, make("p", {}, words));
};
const choice = (label, name, options, change) => {
  const select = make("select", { name, ariaLabel: label });
  select.append(...options.map(([value, text]) => make("option", { value }, text)));
  if (options.some(([value]) => value === state.get(name))) select.value = state.get(name);
  select.addEventListener("change", () => {
    keep(name, select.value);
    change();
  });
  return make("label", {}, label, select);
};
const RESULTS = {
  "": "all",
  broken: "attack succeeds",
  survives: "survives",
  misclassified: "misclassified",
  lost: "lost here, kept there",
  won: "kept here, lost there",
};
const explore = async (id) => {
  const sheet = sheets.get(id);
  if (!sheet || sheet.place.dataset.shown) return;
  sheet.place.dataset.shown = "yes";
  const others = [...sheets].filter(([run, one]) => run !== id && one.group === sheet.group);
  const bar = make("p", { className: "tools" });
  const list = make("div", { className: "list", tabIndex: 0, role: "group", ariaLabel: "Images" });
  const count = make("span", { role: "status" });
  sheet.place.append(make("p", {}, sheet.rule), bar, list);
  const draw = async () => {
    const value = (name) => bar.querySelector(`[name=${name}]`)?.value ?? "";
    await elsewhere.get(value("with"))?.bring();
    const other = sheets.get(value("with"));
    const attack = value("attack") === "" ? -1 : sheet.attacks.indexOf(value("attack"));
    const theirs = other ? (attack < 0 ? -1 : other.attacks.indexOf(value("attack"))) : -1;
    const fits = (image) => {
      const mine = verdict(image, attack);
      const twin = other?.known.get(image[0]);
      const there = twin && verdict(twin, theirs);
      const wanted = value("result");
      if (value("class") !== "" && image[1] !== Number(value("class"))) return false;
      if (wanted === "lost") return mine !== "survives" && there === "survives";
      if (wanted === "won") return mine === "survives" && there && there !== "survives";
      return wanted === "" || mine === wanted;
    };
    const left = sheet.images.filter(fits);
    const found = `${left.length} of ${sheet.images.length} images`;
    count.textContent = left.length ? found : "nothing found";
    const cards = left.map((image) => {
      const title = `image ${image[0]}, class ${sheet.classes[image[1]]}`;
      const card = make("article", {}, make("h3", {}, title));
      card.append(...(other ? [make("h4", {}, sheet.run)] : []), line(sheet, image, attack));
      const twin = other?.known.get(image[0]);
      if (twin) card.append(make("h4", {}, other.run), line(other, twin, theirs));
      return card;
    });
    list.replaceChildren(...cards);
  };
  try {
    await Promise.all([sheet, ...others.map(([, one]) => one)].map((one) => one.picture.decode()));
  } catch {
    const file = sheet.picture.getAttribute("src");
    bar.replaceWith(`${file.startsWith("data:") ? "An image" : file} was not found.`);
    return;
  }
  const named = sheet.classes.map((one, number) => [String(number), one]);
  const runs = [...others, ...elsewhere].map(([run, one]) => [run, one.run]);
  const results = Object.entries(RESULTS).slice(0, runs.length ? 6 : 4);
  bar.append(choice("Class", "class", [["", "all"], ...named], draw));
  const attacks = sheet.attacks.map((one) => [one, one]);
  bar.append(choice("Attack", "attack", [["", "any"], ...attacks], draw));
  bar.append(choice("Result", "result", results, draw));
  if (runs.length) bar.append(choice("Beside", "with", [["", "no other run"], ...runs], draw));
  bar.append(count);
  draw();
};
