// Charts: the value nearest to the mouse is named, a click opens its run; arrow keys go on.
const tip = make("div", { id: "tip", hidden: true, role: "status" });
const dot = document.createElementNS("http://www.w3.org/2000/svg", "circle");
dot.setAttribute("r", "5");
const forget = (svg) => {
  tip.hidden = true;
  dot.remove();
  svg.classList.remove("lit");
};
const name = (svg, point) => {
  for (const part of all("[data-of]", svg)) {
    part.classList.toggle("on", part.dataset.of === point.run);
  }
  svg.classList.add("lit");
  dot.setAttribute("cx", point.x);
  dot.setAttribute("cy", point.y);
  svg.append(dot);
  tip.replaceChildren(make("b", {}, point.name), make("span", {}, point.words));
  (svg.closest("dialog") ?? document.body).append(tip);
  tip.hidden = false;
  const at = new DOMPoint(point.x, point.y).matrixTransform(svg.getScreenCTM());
  const right = document.documentElement.clientWidth - tip.offsetWidth - 8;
  tip.style.left = `${Math.max(8, Math.min(at.x + 12, right))}px`;
  tip.style.top = `${at.y > tip.offsetHeight + 16 ? at.y - tip.offsetHeight - 10 : at.y + 14}px`;
};
const open = (run) => {
  const row = document.querySelector(`main .board tr[data-run="${CSS.escape(run)}"]`);
  row?.scrollIntoView({ block: "center" });
  const link = [...document.links].find((one) => one.hash === `#${run}`);
  if (link) link.click();
  else location.hash = run;
};
for (const svg of all("svg[data-points]")) {
  const points = JSON.parse(svg.dataset.points).flatMap(([name, run, values]) =>
    values.map(([x, y, words]) => ({ name, run, x, y, words })),
  );
  const shown = () => points.filter((point) => !gone.has(point.run));
  const nearest = (event) => {
    const at = new DOMPoint(event.clientX, event.clientY);
    const { x, y } = at.matrixTransform(svg.getScreenCTM().inverse());
    const far = (point) => Math.hypot(point.x - x, point.y - y);
    const best = shown().reduce((a, b) => (a && far(a) <= far(b) ? a : b), undefined);
    return best && far(best) < 28 ? best : undefined;
  };
  let now;
  const show = (point) => {
    now = point;
    if (point) name(svg, point);
    else forget(svg);
  };
  svg.addEventListener("pointermove", (event) => show(nearest(event)));
  svg.addEventListener("pointerleave", () => show());
  svg.addEventListener("blur", () => show());
  svg.addEventListener("click", (event) => {
    const point = nearest(event);
    if (point?.run && !event.target.closest("a")) open(point.run);
  });
  svg.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    const list = shown();
    if (step && list.length) {
      event.preventDefault();
      const place = list.indexOf(now);
      show(list[place < 0 ? 0 : (place + step + list.length) % list.length]);
    } else if (event.key === "Enter" && now?.run) open(now.run);
    else if (event.key === "Escape" && now) {
      event.preventDefault();
      show();
    }
  });
}
