// Saving: a board as its CSV file, what is shown of it as Markdown or LaTeX, a chart as a picture.
const save = (content, name) => {
  const link = make("a", { download: name, href: URL.createObjectURL(new Blob([content])) });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
};
const copy = async (content, name, told) => {
  try {
    await navigator.clipboard.writeText(content);
    told.textContent = "copied";
  } catch {
    save(content, name); // a page of a server without TLS has no clipboard
  }
};
const escaper = ({ special, named }) => {
  const pattern = new RegExp(special, "g");
  return (text) => text.replace(pattern, (one) => named[one] ?? `\\${one}`);
};
const [inMarkdown, inLatex] = [escaper(ESCAPES.markdown), escaper(ESCAPES.latex)];
const words = (cell) => {
  const plain = (one) => one?.textContent.replace(/\s+/g, " ").trim() ?? "";
  const note = plain(cell.querySelector("small"));
  const whole = plain(cell.querySelector("a") ?? cell);
  const text = note ? whole.slice(0, -note.length) : whole;
  if (!note) return text;
  return note.startsWith("±") ? `${text} ${note}` : `${text} (${note})`;
};
const visible = (cells) => [...cells].filter((cell) => !cell.hidden);
const lines = (board) => visible(all("tr", board)).map((row) => visible(row.cells).map(words));
const markdown = (board) => {
  const [head, ...rows] = lines(board).map((row) => `| ${row.map(inMarkdown).join(" | ")} |`);
  const rule = `|${" --- |".repeat(lines(board)[0].length)}`;
  return [head, rule, ...rows, ""].join("\n");
};
const latex = (board) => {
  const numbers = visible(all("thead th", board)).map((head) => head.matches(".number"));
  const places = numbers.map((one) => (one ? "r" : "l")).join("");
  const [head, ...rows] = lines(board).map((row) => `${row.map(inLatex).join(" & ")} \\\\`);
  const about = ["% needs \\usepackage{booktabs}", `\\begin{tabular}{${places}}`];
  const whole = [...about, "\\toprule", head, "\\midrule", ...rows, "\\bottomrule"];
  return [...whole, "\\end{tabular}", ""].join("\n");
};

const draw = (tag, values, ...content) => {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(values)) made.setAttribute(name, value);
  made.append(...content);
  return made;
};
const DASHES = { dashed: "6 3", dotted: "2 2", double: "8 2 2 2" };
const standalone = (chart) => {
  const made = chart.querySelector("svg").cloneNode(true);
  const [, , width, height] = made.getAttribute("viewBox").split(" ").map(Number);
  for (const part of all(".off, circle", made)) part.remove();
  for (const { name } of [...made.attributes]) made.removeAttribute(name);
  const runs = all("[data-hides][aria-pressed=true]", chart);
  runs.forEach((entry, number) => {
    const { borderTopColor: stroke, borderTopStyle: style } = entry.firstElementChild.style;
    const [y, dash] = [height + 14 * number + 7, DASHES[style] ?? ""];
    const line = { x1: 10, x2: 34, y1: y, y2: y, stroke, "stroke-width": 1.6 };
    made.append(draw("line", { ...line, "stroke-dasharray": dash }));
    made.append(draw("text", { x: 40, y: y + 3, fill: "#1c2430" }, entry.textContent));
  });
  const tall = height + 14 * runs.length;
  const size = { width, height: tall, viewBox: `0 0 ${width} ${tall}` };
  const style = "color: #1c2430; background: #fff; stroke-linejoin: round; font: 9px DejaVu Sans, sans-serif";
  for (const [name, value] of Object.entries({ ...size, style })) made.setAttribute(name, value);
  return { width, height: tall, text: new XMLSerializer().serializeToString(made) };
};
const saveAsPng = async (chart, name) => {
  const { width, height, text } = standalone(chart);
  const picture = make("img", { src: `data:image/svg+xml,${encodeURIComponent(text)}` });
  await picture.decode();
  const pen = make("canvas", { width: 3 * width, height: 3 * height }).getContext("2d");
  pen.fillStyle = "#fff";
  pen.fillRect(0, 0, pen.canvas.width, pen.canvas.height);
  pen.drawImage(picture, 0, 0, pen.canvas.width, pen.canvas.height);
  pen.canvas.toBlob((blob) => save(blob, name));
};

const offer = (one, ways) => {
  const told = make("span", { role: "status" });
  const buttons = Object.entries(ways).map(([name, act]) => {
    const button = make("button", { type: "button" }, name);
    button.addEventListener("click", () => act(told));
    return button;
  });
  const bar = one.querySelector(".bar") ?? one.querySelector("figcaption");
  bar.append(make("span", { className: "save" }, ...buttons, told));
};
for (const board of boards) {
  const { stem, csv } = board.dataset;
  offer(board, {
    ...(csv && { "Save CSV": () => save(csv, `${stem}.csv`) }),
    "Copy Markdown": (told) => copy(markdown(board), `${stem}.md`, told),
    "Copy LaTeX": (told) => copy(latex(board), `${stem}.tex`, told),
  });
}
for (const chart of all("figure.chart:has(svg)")) {
  const { stem } = chart.dataset;
  offer(chart, {
    "Save SVG": () => save(standalone(chart).text, `${stem}.svg`),
    "Save PNG": () => saveAsPng(chart, `${stem}.png`),
  });
}
