"use strict";
(() => {
const data = JSON.parse(document.getElementById("curves").textContent);
const all = (selector, within = document) => [...within.querySelectorAll(selector)];
const SIZE = 1000, GUTTER = 0.8, HALF = 0.5, LABEL = 17, NEAR = 16;
let axis = "step";

const seconds = s => s < 60 ? +s.toPrecision(3) + "s" : s < 3600
  ? Math.floor(Math.round(s) / 60) + "m" + String(Math.round(s) % 60).padStart(2, "0") + "s"
  : Math.floor(s / 3600) + "h" + String(Math.floor(s % 3600 / 60)).padStart(2, "0") + "m";
const where = x => axis === "step" ? "step " + Math.round(x).toLocaleString("en")
  : axis === "epoch" ? "epoch " + +x.toFixed(2) : seconds(x) + (axis === "train" ? " of training" : " into the run");
const fixed = (v, digits) => v.toLocaleString("en", {minimumFractionDigits: digits, maximumFractionDigits: digits});
const score = (chart, v) => chart.percent ? (100 * v).toFixed(1 + chart.finer) + "%"
  : chart.digits || (v !== 0 && Math.abs(v) < 0.01 && !chart.bounded) ? String(+v.toPrecision(3 + chart.finer))
  : fixed(v, (Math.abs(v) < 10 ? 3 : 1) + chart.finer);
const share = x => data.axes[axis].end > 0 ? Math.min(1, x / data.axes[axis].end) : 0;
const height = (chart, v) => (chart.high - v) / (chart.high - chart.low);
const strong = line => line.k !== "faint" && line.k !== "probe";

function path(chart, xs, ys) {
  return "M" + xs.map((x, i) => Math.round(SIZE * share(x)) + " "
    + Math.round(SIZE * Math.max(-9, Math.min(9, height(chart, ys[i]))))).join("L");
}

function draw(plot) {
  const chart = data.charts[plot.dataset.chart], svg = plot.querySelector("svg");
  for (const el of all("[data-l]", svg)) { const l = chart.lines[el.dataset.l]; el.setAttribute("d", path(chart, l[axis], l.y)); }
  for (const el of all("[data-b]", svg)) {
    const l = chart.lines[el.dataset.b], xs = l[axis];
    el.setAttribute("d", path(chart, [...xs, ...[...xs].reverse()],
      [...l.b.map(b => b[1]), ...l.b.map(b => b[0]).reverse()]) + "Z");
  }
  for (const el of all("[data-d]", plot)) el.style.left = 100 * share(chart.dots[el.dataset.d][axis][0]) + "%";
  const parts = chart.parts.filter(p => !p.p), phases = chart.parts.filter(p => p.p);
  const falls = all(".fall", svg);
  parts.concat(phases).filter(p => p[axis].length > 2).forEach((p, i) => {
    if (!falls[i]) return;
    const left = SIZE * share(p[axis][2]);
    falls[i].setAttribute("x", left); falls[i].setAttribute("width", Math.max(0, SIZE * share(p[axis][1]) - left));
  });
  all("path.phase", svg).forEach((el, i) => el.setAttribute("d", `M${SIZE * share(phases[i + 1][axis][0])} 0V${SIZE}`));
  for (const [name, row] of [["phases", phases], ["trials", parts]])
    all(`.${name} span`, plot.parentElement).forEach((el, i) => {
      el.style.left = 100 * share(row[i][axis][0]) + "%";
      el.style.width = 100 * ((i + 1 < row.length ? share(row[i + 1][axis][0]) : 1) - share(row[i][axis][0])) + "%";
    });
  all(".x", plot).forEach(el => el.remove());
  data.axes[axis].marks.forEach(([x, text], i) => {
    const el = document.createElement("span");
    el.className = i % 2 ? "x o" : "x"; el.style.left = 100 * x + "%"; el.textContent = text; plot.append(el);
  });
  place(plot, chart);
}

function place(plot, chart) { // labels stand where lines end, one below the other
  const pixels = plot.clientHeight, groups = [[], []];
  for (const el of all(".end", plot)) {
    const key = el.dataset.k, item = key[0] === "l" ? chart.lines[key.slice(1)] : key[0] === "d" ? chart.dots[key.slice(1)] : null;
    const x = item ? share(item[axis].at(-1)) : 1;
    if (item) el.style.left = (x < GUTTER ? 100 * x : 100) + "%";
    el.classList.toggle("in", x < GUTTER); el.classList.toggle("late", x >= HALF && x < GUTTER);
    const y = item ? height(chart, Array.isArray(item.y) ? item.y.at(-1) : item.y) * pixels : parseFloat(el.dataset.y ??= el.offsetTop);
    groups[x < HALF ? 1 : 0].push([Math.max(0, Math.min(pixels, y)), el]);
  }
  for (const group of groups) {
    group.sort((a, b) => a[0] - b[0]);
    group.forEach((g, i) => { if (i) g[0] = Math.max(g[0], group[i - 1][0] + LABEL); });
    for (let i = group.length - 1, limit = pixels - LABEL / 2; i >= 0; i--) { group[i][0] = Math.min(group[i][0], limit); limit = group[i][0] - LABEL; }
    for (const [y, el] of group) el.style.top = y + "px";
  }
}

function nearest(xs, x) {
  let best = 0;
  xs.forEach((value, i) => { if (Math.abs(value - x) < Math.abs(xs[best] - x)) best = i; });
  return best;
}

function read(plot, x, y) { // what stands at this place, in words; y in pixels, or null where there is no pointer
  const chart = data.charts[plot.dataset.chart], width = plot.clientWidth, pixels = plot.clientHeight;
  const rows = [], lines = chart.lines.filter(strong);
  const main = lines.find(l => l.k === "look") || lines[0];
  const at = main ? main[axis][nearest(main[axis], x)] : x;
  for (const line of lines) {
    const xs = line[axis], i = nearest(xs, at);
    if (Math.abs(share(xs[i]) - share(at)) > 0.06 && xs.length > 1) continue;
    rows.push([line.k, line.n, score(chart, line.y[i]) + (line.b ? ` (${score(chart, line.b[i][0])} to ${score(chart, line.b[i][1])})` : "")]);
  }
  for (const level of chart.levels) rows.push([level.k, level.n, score(chart, level.y)]);
  let close = null, far = NEAR;
  if (y !== null) {
    const look = (item, i, value) => {
      const away = Math.hypot((share(item[axis][i]) - share(x)) * width, height(chart, value) * pixels - y);
      if (away < far) { far = away; close = [item, value]; }
    };
    for (const line of chart.lines) if (!strong(line)) line.y.forEach((v, i) => look(line, i, v));
    for (const dot of chart.dots) if (dot.k !== "look") look(dot, 0, dot.y);
  }
  if (close) rows.push(["faint", close[0].n + (close[0].t ? ` [${close[0].t}]` : ""), score(chart, close[1])]);
  return {at, rows, trial: close && close[0].t};
}

function show(plot, x, y) {
  const tip = plot.querySelector(".tip"), rule = plot.querySelector(".rule"), found = read(plot, x, y);
  tip.replaceChildren();
  const head = document.createElement("b"); head.textContent = where(found.at); tip.append(head);
  for (const [kind, name, value] of found.rows) {
    const row = document.createElement("div"), key = document.createElement("i"), text = document.createElement("span");
    key.className = kind; text.textContent = `${name} ${value}`; row.append(key, text); tip.append(row);
  }
  rule.style.left = 100 * share(found.at) + "%";
  tip.setAttribute("aria-live", y === null ? "polite" : "off"); // keys are answered aloud, the pointer is not
  tip.hidden = rule.hidden = false;
  const px = share(found.at) * plot.clientWidth, left = px > plot.clientWidth / 2 ? px - tip.offsetWidth - 8 : px + 8;
  tip.style.left = Math.max(0, Math.min(plot.clientWidth - tip.offsetWidth, left)) + "px";
  light(found.trial);
  return found.at;
}
const hide = plot => { plot.querySelector(".tip").hidden = plot.querySelector(".rule").hidden = true; light(null); };

function light(hovered) { // grey lines stand out while somebody points at them, or has their trial open
  const open = new Set(all("details.trial[open]").map(el => el.dataset.t));
  if (hovered) open.add(hovered);
  for (const el of all(".plot [data-t]")) el.classList.toggle("on", open.has(el.dataset.t));
  for (const el of all("details.trial")) el.classList.toggle("lit", el.dataset.t === hovered);
}

for (const plot of all(".plot")) {
  const tip = document.createElement("div"), rule = document.createElement("div");
  tip.className = "tip"; tip.setAttribute("role", "status"); rule.className = "rule"; tip.hidden = rule.hidden = true;
  plot.append(rule, tip);
  plot.tabIndex = 0; plot.setAttribute("role", "group");
  plot.setAttribute("aria-label", "Chart; the arrow keys read its values out");
  const chart = data.charts[plot.dataset.chart];
  let key = null;
  plot.addEventListener("pointermove", event => {
    const box = plot.getBoundingClientRect();
    const x = Math.max(0, Math.min(1, (event.clientX - box.left) / box.width));
    key = show(plot, x * data.axes[axis].end, event.clientY - box.top);
  });
  plot.addEventListener("pointerleave", () => hide(plot));
  plot.addEventListener("blur", () => hide(plot));
  plot.addEventListener("keydown", event => {
    const line = chart.lines.filter(strong).find(l => l.k === "look") || chart.lines.filter(strong)[0];
    if (event.key === "Escape") return hide(plot);
    if (!line || !["ArrowLeft", "ArrowRight", "Home", "End"].includes(event.key)) return;
    event.preventDefault();
    const xs = line[axis], now = key === null ? -1 : nearest(xs, key), last = xs.length - 1;
    const next = {ArrowLeft: now < 0 ? last : now - 1, ArrowRight: now + 1, Home: 0, End: last}[event.key];
    key = show(plot, xs[Math.max(0, Math.min(last, next))], null);
  });
}

for (const field of all(".axes")) {
  field.hidden = false;
  field.addEventListener("change", event => {
    axis = event.target.value;
    all(".plot").forEach(draw);
    for (const el of all(".axis")) el.textContent = data.axes[axis].name;
  });
}
for (const el of all("details.trial")) {
  el.addEventListener("toggle", () => light(null));
  el.addEventListener("pointerenter", () => light(el.dataset.t));
  el.addEventListener("pointerleave", () => light(null));
}
addEventListener("resize", () => all(".plot").forEach(plot => place(plot, data.charts[plot.dataset.chart])));
all(".plot").forEach(draw);
})();
