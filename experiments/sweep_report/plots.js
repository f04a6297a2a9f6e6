// Draws every figure of the page from the data that it carries. A drag zooms, a double click shows
// all again; the legend hides and shows; buttons take logarithms and choose what x is.
"use strict";

// The name of the SVG name space, taken from an element, so that the page holds no address at all.
const kSvg = new DOMParser()
  .parseFromString("<svg></svg>", "text/html").querySelector("svg").namespaceURI;

function element(name, attributes, parent) {
  const made = document.createElementNS(kSvg, name);
  for (const key in attributes) made.setAttribute(key, attributes[key]);
  if (parent) parent.append(made);
  return made;
}

function html(name, className, parent, text) {
  const made = document.createElement(name);
  made.className = className;
  if (text) made.textContent = text;
  if (parent) parent.append(made);
  return made;
}

// ---- Numbers and ticks

function superscript(power) {
  return String(power).replace(/./g, (c) => (c === "-" ? "⁻" : "⁰¹²³⁴⁵⁶⁷⁸⁹"[c]));
}

function numberText(value, digits = 4) {
  if (value === 0) return "0";
  const power = Math.floor(Math.log10(Math.abs(value)) + 1e-9);
  if (power >= -4 && power < 5) return String(Number(value.toPrecision(digits)));
  const mantissa = Number((value / 10 ** power).toPrecision(digits));
  return (mantissa === 1 ? "" : mantissa + "×") + "10" + superscript(power);
}

function linearTicks(low, high, wanted) {
  const least = (0.7 * (high - low)) / wanted;
  const power = 10 ** Math.floor(Math.log10(least));
  const step = [1, 2, 5, 10].map((m) => m * power).find((s) => s >= least * (1 - 1e-9));
  const ticks = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + 1e-9 * step; ++i)
    ticks.push(Number((i * step).toPrecision(12)));
  return ticks;
}

function logTicks(low, high, wanted) {
  const first = Math.floor(Math.log10(low));
  const last = Math.ceil(Math.log10(high));
  for (const mantissas of [[1], [1, 2, 5], [1, 2, 3, 4, 5, 6, 7, 8, 9]]) {
    let ticks = [];
    for (let power = first; power <= last; ++power)
      for (const m of mantissas) ticks.push(Number((m * 10 ** power).toPrecision(12)));
    ticks = ticks.filter((t) => t >= low * (1 - 1e-9) && t <= high * (1 + 1e-9));
    if (ticks.length < 3) continue;
    const stride = Math.ceil(ticks.length / (wanted + 2));
    return ticks.filter((_, i) => i % stride === 0);
  }
  return linearTicks(low, high, wanted);
}

// An axis maps values onto pixels and back.
class Axis {
  constructor(range, log, from, to) {
    Object.assign(this, { low: range[0], high: range[1], log, from, to });
  }
  measure(value) { return this.log ? Math.log(value) : value; }
  shows(value) { return value !== null && (!this.log || value > 0); }
  pixel(value) {
    const low = this.measure(this.low), high = this.measure(this.high);
    return this.from + ((this.measure(value) - low) / (high - low)) * (this.to - this.from);
  }
  value(pixel) {
    const low = this.measure(this.low), high = this.measure(this.high);
    const measure = low + ((pixel - this.from) / (this.to - this.from)) * (high - low);
    return this.log ? Math.exp(measure) : measure;
  }
  ticks() {
    const wanted = Math.max(2, Math.abs(this.to - this.from) / (this.from < this.to ? 90 : 50));
    return (this.log ? logTicks : linearTicks)(this.low, this.high, wanted);
  }
}

// The range of values with a margin, in the axis's own measure.
function paddedRange(low, high, log, margin) {
  if (low > high) return log ? [1, 10] : [0, 1];
  const a = log ? Math.log(low) : low, b = log ? Math.log(high) : high;
  const pad = b > a ? margin * (b - a) : log ? 0.3 : Math.max(0.1 * Math.abs(a), 1e-6);
  return log ? [Math.exp(a - pad), Math.exp(b + pad)] : [a - pad, b + pad];
}

// ---- One figure

class PlotView {
  constructor(figure) {
    this.figure = figure;
    this.plot = JSON.parse(figure.querySelector("script").textContent);
    this.xChoice = 0;
    this.logX = this.plot.x[0].log;
    this.logY = this.plot.y.log;
    this.zoom = null;
    this.hidden = new Set();
    this.buildControls();
    this.svg = element("svg", { role: "img", "aria-label": figure.getAttribute("aria-label") }, figure);
    this.readout = html("output", "readout", figure, "");
    this.listen();
    new ResizeObserver(() => this.draw()).observe(figure);
  }

  buildControls() {
    const bar = html("div", "controls", this.figure);
    const legend = html("div", "legend", bar);
    const groups = new Map();
    for (const s of this.plot.series) if (!groups.has(s.group)) groups.set(s.group, s);
    for (const [group, series] of groups) this.addLegendEntry(legend, group, series);
    const tools = html("div", "tools", bar);
    if (this.plot.x.length > 1)
      this.plot.x.forEach((axis, i) => this.addButton(tools, axis.title, () => this.xChoice === i, () => {
        this.xChoice = i;
        this.zoom = null;
      }));
    this.addButton(tools, "log x", () => this.logX, () => { this.logX = !this.logX; this.zoom = null; });
    this.addButton(tools, "log y", () => this.logY, () => { this.logY = !this.logY; this.zoom = null; });
    this.reset = this.addButton(tools, "show all", () => false, () => { this.zoom = null; });
  }

  addLegendEntry(legend, group, series) {
    const button = this.addButton(legend, group, () => !this.hidden.has(group), () => {
      if (!this.hidden.delete(group)) this.hidden.add(group);
    });
    const swatch = html("span", "swatch" + (series.mark === "dashed" ? " dashed" : ""));
    swatch.style.color = `var(--c${series.colour % 8})`;
    button.prepend(swatch);
  }

  addButton(parent, text, pressed, act) {
    const button = html("button", "", parent, text);
    button.type = "button";
    button.isPressed = pressed;
    button.addEventListener("click", () => { act(); this.draw(); });
    return button;
  }

  visible() { return this.plot.series.filter((s) => !this.hidden.has(s.group)); }

  // What all visible points need; bands and whiskers may widen it by half of that at each side.
  fullRange() {
    const x = [Infinity, -Infinity], y = [Infinity, -Infinity], band = [Infinity, -Infinity];
    const widen = (range, value, log) => {
      if (value === null || value === undefined || (log && value <= 0)) return;
      range[0] = Math.min(range[0], value);
      range[1] = Math.max(range[1], value);
    };
    for (const s of this.visible())
      s.y.forEach((value, i) => {
        if (value === null || (this.logY && value <= 0)) return;
        const at = s.x[this.xChoice][i];
        if (at === null || (this.logX && at <= 0)) return;
        widen(x, at, this.logX);
        widen(y, value, this.logY);
        if (s.low) { widen(band, s.low[i], this.logY); widen(band, s.high[i], this.logY); }
      });
    const most = paddedRange(y[0], y[1], this.logY, 0.5);
    const low = Math.min(y[0], Math.max(band[0], most[0]));
    const high = Math.max(y[1], Math.min(band[1], most[1]));
    return { x: paddedRange(x[0], x[1], this.logX, 0.03), y: paddedRange(low, high, this.logY, 0.06) };
  }

  draw() {
    const width = this.figure.clientWidth;
    if (width === 0) return;
    const height = width < 560 ? 320 : 430;
    const range = this.zoom || this.fullRange();
    this.frame = { left: 64, right: width - 12, top: 10, bottom: height - 46 };
    this.x = new Axis(range.x, this.logX, this.frame.left, this.frame.right);
    this.y = new Axis(range.y, this.logY, this.frame.bottom, this.frame.top);
    this.svg.replaceChildren();
    this.svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    this.svg.setAttribute("height", height);
    this.drawAxes(width, height);
    this.drawSeries();
    this.marker = element("circle", { class: "marker", r: 6, visibility: "hidden" }, this.svg);
    this.selection = element("rect", { class: "selection", visibility: "hidden" }, this.svg);
    for (const button of this.figure.querySelectorAll("button"))
      button.setAttribute("aria-pressed", button.isPressed());
    this.reset.hidden = this.zoom === null;
  }

  drawAxes(width, height) {
    const { left, right, top, bottom } = this.frame;
    let free = left - 20;
    for (const tick of this.x.ticks()) {
      const x = this.x.pixel(tick), text = numberText(tick);
      element("line", { class: "grid", x1: x, x2: x, y1: top, y2: bottom }, this.svg);
      const half = text.length * 3.6;
      if (x - half < free || x + half > width) continue;
      free = x + half + 8;
      element("text", { x, y: bottom + 17, "text-anchor": "middle" }, this.svg).textContent = text;
    }
    for (const tick of this.y.ticks()) {
      const y = this.y.pixel(tick);
      element("line", { class: "grid", x1: left, x2: right, y1: y, y2: y }, this.svg);
      element("text", { x: left - 7, y: y + 4, "text-anchor": "end" }, this.svg).textContent = numberText(tick);
    }
    element("rect", { class: "frame", x: left, y: top, width: right - left, height: bottom - top }, this.svg);
    const middle = (left + right) / 2;
    element("text", { class: "title", x: middle, y: height - 8, "text-anchor": "middle" }, this.svg)
      .textContent = this.plot.x[this.xChoice].title;
    element("text", {
      class: "title", "text-anchor": "middle",
      transform: `translate(14 ${(top + bottom) / 2}) rotate(-90)`,
    }, this.svg).textContent = this.plot.y.title;
  }

  drawSeries() {
    const { left, right, top, bottom } = this.frame;
    const id = this.figure.id + "-clip";
    const clip = element("clipPath", { id }, this.svg);
    element("rect", { x: left, y: top, width: right - left, height: bottom - top }, clip);
    const layer = element("g", { "clip-path": `url(#${id})` }, this.svg);
    for (const s of this.visible()) {
      const group = element("g", { class: s.mark, style: `color: var(--c${s.colour % 8})` }, layer);
      const points = this.pixelsOf(s);
      const isPoints = s.mark === "points";
      if (s.low) (isPoints ? this.drawWhiskers : this.drawBand).call(this, group, s, points);
      if (!isPoints) element("path", { class: "stroke", d: this.path(points) }, group);
      const few = points.filter(Boolean).length <= 40;
      if (isPoints || (s.mark === "point_line" && few) || s.mark === "dashed")
        for (const p of points)
          if (p) element("circle", { cx: p.x, cy: p.y, r: isPoints ? 4 : 2.2 }, group);
    }
  }

  pixelsOf(s) {
    const at = s.x[this.xChoice];
    return s.y.map((value, i) =>
      this.x.shows(at[i]) && this.y.shows(value)
        ? { x: this.x.pixel(at[i]), y: this.y.pixel(value), index: i } : null);
  }

  path(points) {
    let text = "", gap = true;
    for (const p of points) {
      if (p) text += `${gap ? "M" : "L"}${p.x.toFixed(1)},${p.y.toFixed(1)}`;
      gap = !p;
    }
    return text;
  }

  // A bound that an axis cannot show (0 on a logarithmic one) ends at the frame.
  boundPixel(value) { return this.y.shows(value) ? this.y.pixel(value) : this.frame.bottom + 9; }

  drawBand(group, s, points) {
    const inside = points.filter((p) => p && s.low[p.index] !== null);
    if (inside.length < 2) return;
    const side = (bound, list) => list.map((p) => `${p.x.toFixed(1)},${this.boundPixel(bound[p.index]).toFixed(1)}`);
    const outline = side(s.high, inside).concat(side(s.low, inside.slice().reverse()));
    element("path", { class: "band", d: "M" + outline.join("L") + "Z" }, group);
  }

  drawWhiskers(group, s, points) {
    for (const p of points)
      if (p && s.low[p.index] !== null)
        element("line", {
          class: "whisker", x1: p.x, x2: p.x,
          y1: this.boundPixel(s.low[p.index]), y2: this.boundPixel(s.high[p.index]),
        }, group);
  }

  // ---- The pointer

  listen() {
    const place = (event) => {
      const box = this.svg.getBoundingClientRect();
      const clamp = (v, low, high) => Math.min(Math.max(v, low), high);
      return {
        x: clamp(event.clientX - box.left, this.frame.left, this.frame.right),
        y: clamp(event.clientY - box.top, this.frame.top, this.frame.bottom),
      };
    };
    let start = null;
    this.svg.addEventListener("pointerdown", (event) => {
      if (event.button !== 0) return;
      start = place(event);
      this.svg.setPointerCapture(event.pointerId);
    });
    this.svg.addEventListener("pointermove", (event) => {
      const now = place(event);
      if (start) this.showSelection(start, now, event.pointerType);
      else this.showNearest(now);
    });
    this.svg.addEventListener("pointerup", (event) => {
      const now = place(event);
      if (start && Math.abs(now.x - start.x) > 8) this.zoomTo(start, now, event.pointerType);
      else if (start) { this.selection.setAttribute("visibility", "hidden"); this.showNearest(now); }
      start = null;
    });
    this.svg.addEventListener("pointercancel", () => {
      start = null;
      this.selection.setAttribute("visibility", "hidden");
    });
    this.svg.addEventListener("dblclick", () => { this.zoom = null; this.draw(); });
  }

  // A finger, which must also scroll, chooses x alone; so does a flat drag.
  selectedY(a, b, pointer) {
    const flat = pointer === "touch" || Math.abs(a.y - b.y) < 12;
    return flat ? [this.frame.top, this.frame.bottom] : [Math.min(a.y, b.y), Math.max(a.y, b.y)];
  }

  showSelection(a, b, pointer) {
    const [top, bottom] = this.selectedY(a, b, pointer);
    const area = { x: Math.min(a.x, b.x), y: top, width: Math.abs(a.x - b.x), height: bottom - top };
    for (const key in area) this.selection.setAttribute(key, area[key]);
    this.selection.setAttribute("visibility", "visible");
  }

  zoomTo(a, b, pointer) {
    const [top, bottom] = this.selectedY(a, b, pointer);
    this.zoom = {
      x: [this.x.value(Math.min(a.x, b.x)), this.x.value(Math.max(a.x, b.x))],
      y: [this.y.value(bottom), this.y.value(top)],
    };
    this.draw();
  }

  showNearest(at) {
    let best = null, least = 40 * 40;
    for (const s of this.visible())
      for (const p of this.pixelsOf(s)) {
        if (!p) continue;
        const distance = (p.x - at.x) ** 2 + (p.y - at.y) ** 2;
        if (distance < least) { least = distance; best = { s, p }; }
      }
    this.marker.setAttribute("visibility", best ? "visible" : "hidden");
    if (!best) return;
    const { s, p } = best, i = p.index;
    this.marker.setAttribute("cx", p.x);
    this.marker.setAttribute("cy", p.y);
    const bounds = s.low && s.low[i] !== null
      ? ` (95 %: ${numberText(s.low[i])} .. ${numberText(s.high[i])})` : "";
    this.readout.textContent =
      `${s.label}: ${numberText(s.y[i], 5)}${bounds} at ${numberText(s.x[this.xChoice][i])} ${this.plot.x[this.xChoice].title}`;
  }
}

for (const figure of document.querySelectorAll("figure.plot")) new PlotView(figure);
