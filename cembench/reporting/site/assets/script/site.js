{
  // Images of a run are there from the beginning on its page, those of others when they are chosen.
  const script = (src) =>
    new Promise((done, failed) => {
      const made = make("script", { src });
      made.addEventListener("load", done);
      made.addEventListener("error", failed);
      document.head.append(made);
    });
  for (const main of all("main[id]")) {
    for (const [id, run] of JSON.parse(main.dataset.beside)) {
      let coming;
      const bring = async () => {
        await (coming ??= script(`../${id}/images.js`));
        if (sheets.has(id)) return;
        const picture = make("img", { src: `../${id}/images.png` });
        await picture.decode();
        sheets.set(id, sheetOf(globalThis.cembenchImages[id], picture));
      };
      elsewhere.set(id, { run, bring: () => bring().catch(() => (coming = undefined)) });
    }
    explore(main.id);
  }

  // Light or dark, once chosen, holds for all pages.
  const chosen = (value) => {
    try {
      if (value) localStorage.setItem("cembench-theme", value);
      return localStorage.getItem("cembench-theme");
    } catch {
      return null; // a browser may refuse to keep anything
    }
  };
  if (["light", "dark"].includes(chosen())) {
    document.documentElement.dataset.theme = chosen();
    tell();
  }
  theme.addEventListener("click", () => chosen(document.documentElement.dataset.theme));

  // Search: pages with all words; what there is is read at the first use.
  const MOST = 40;
  const { root } = document.currentScript.dataset;
  const field = document.getElementById("search");
  const place = document.getElementById("found");
  let reading;
  const read = async () => {
    await (reading ??= script(`${root}search.js`));
    return globalThis.cembenchSearch;
  };
  const entry = ([kind, title, words, to]) =>
    make(
      "a",
      { href: root + to },
      make("span", {}, kind),
      make("b", {}, title),
      ...(words ? [make("small", {}, words)] : []),
    );
  const search = async () => {
    const words = field.value.toLowerCase().split(/\s+/).filter(Boolean);
    if (!words.length) {
      place.hidden = true;
      return;
    }
    let listed;
    try {
      listed = await read();
    } catch {
      place.replaceChildren(make("p", {}, "search.js was not found."));
      place.hidden = false;
      return;
    }
    const fits = listed.filter(([kind, title, more]) => {
      const text = `${kind} ${title} ${more}`.toLowerCase();
      return words.every((word) => text.includes(word));
    });
    const rest = fits.length > MOST ? `, the first ${MOST}` : "";
    const told = fits.length ? `${fits.length} found${rest}` : "Nothing found";
    place.replaceChildren(make("p", { role: "status" }, told), ...fits.slice(0, MOST).map(entry));
    place.hidden = false;
  };
  field.addEventListener("input", search);
  field.addEventListener("focus", search);
  addEventListener("click", (event) => {
    if (!event.target.closest(".search")) place.hidden = true;
  });
  document.querySelector(".search").addEventListener("keydown", (event) => {
    const links = all("a", place);
    if (event.key === "Enter" && event.target === field) links[0]?.click();
    if (event.key === "Escape") {
      place.hidden = true;
      field.focus();
    }
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (!step) return;
    event.preventDefault();
    const next = links.indexOf(document.activeElement) + step;
    (next < 0 ? field : links[Math.min(next, links.length - 1)])?.focus();
  });
}
