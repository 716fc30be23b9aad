// Values under the pointer, and a part of a curve enlarged. Without a script the picture stays.
const SVG = "http://www.w3.org/2000/svg";
const DASHES = ["", "6 2.5", "9 2.5 1.5 2.5", "1.5 2.5"];

function make(parent, name, attributes, text) {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  if (text !== undefined) element.textContent = text;
  parent.append(element);
  return element;
}

function digits(value) {
  return value === null ? "-" : String(Number(value.toPrecision(4)));
}

// Round numbers from low to high, about `count` of them.
function ticks(low, high, count) {
  const rough = (high - low) / count, power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].find((s) => s * power >= rough) * power, found = [];
  for (let i = Math.ceil(low / step); i * step <= high; i++) found.push(i * step);
  return found;
}

class Live {
  constructor(figure) {
    this.data = JSON.parse(figure.dataset.points);
    this.svg = figure.querySelector("svg");
    this.colour = (i) => `var(--c${i % 6})`;
    this.steps = [...new Set(this.data.lines.flatMap((line) => line.x))].sort((a, b) => a - b);
    this.place = -1;
    this.part = null; // [low, high] of x while enlarged
    this.enlarged = make(this.svg, "g", {});
    this.cursor = make(this.svg, "g", {"pointer-events": "none"});
    this.values = document.createElement("output");
    figure.append(this.values);
    this.svg.tabIndex = 0;
    this.listen();
  }

  listen() {
    const on = (name, act) => this.svg.addEventListener(name, act);
    on("pointermove", (event) => this.move(event));
    on("pointerleave", () => this.from === undefined && this.point(-1));
    on("pointerdown", (event) => {
      if (event.pointerType === "mouse" && event.button) return;
      this.move(event);
      if (this.data.linear) this.from = this.where(event);
    });
    on("pointerup", (event) => this.drop(this.where(event)));
    on("pointercancel", () => (this.from = undefined));
    on("dblclick", () => this.enlarge(null));
    on("keydown", (event) => {
      const way = {ArrowLeft: -1, ArrowRight: 1}[event.key];
      if (way) {
        this.point(Math.min(Math.max(this.place + way, 0), this.steps.length - 1));
        event.preventDefault();
      } else if (event.key === "Escape") this.enlarge(null);
    });
  }

  // x of the viewBox under the pointer, inside the axes
  where(event) {
    const [left, , right] = this.data.box, box = this.svg.getBoundingClientRect();
    const x = ((event.clientX - box.left) * this.svg.viewBox.baseVal.width) / box.width;
    return Math.min(Math.max(x, left), right);
  }

  limits() {
    return this.part ?? this.data.x;
  }

  // x of a point in the viewBox
  at(line, i) {
    if (!this.part) return line.at[i];
    const [left, , right] = this.data.box, [low, high] = this.part;
    return left + ((line.x[i] - low) / (high - low)) * (right - left);
  }

  y(value) {
    const [, top, , bottom] = this.data.box, [low, high] = this.range ?? this.data.y;
    return bottom - ((value - low) / (high - low)) * (bottom - top);
  }

  move(event) {
    const x = this.where(event);
    let best = Infinity, found = -1;
    for (const line of this.data.lines)
      line.x.forEach((step, i) => {
        const far = Math.abs(this.at(line, i) - x);
        if (far < best) [best, found] = [far, this.steps.indexOf(step)];
      });
    this.point(found);
    if (this.from !== undefined) this.span(this.from, x);
  }

  span(a, b) {
    const [, top, , bottom] = this.data.box;
    make(this.cursor, "rect", {class: "span", x: Math.min(a, b), y: top,
      width: Math.abs(b - a), height: bottom - top});
  }

  point(place) {
    this.place = place;
    this.cursor.replaceChildren();
    this.values.replaceChildren();
    if (place < 0) return;
    const step = this.steps[place], [left, top, right, bottom] = this.data.box;
    const name = document.createElement("span");
    name.textContent = `${this.data.names[0]} ${digits(step)}`;
    this.values.append(name);
    this.data.lines.forEach((line, n) => {
      const i = line.x.indexOf(step);
      if (i < 0 || line.y[i] === null) return;
      const x = this.at(line, i), y = this.y(line.y[i]), value = document.createElement("b");
      value.textContent = `${line.name} ${digits(line.y[i])}`.trim();
      value.style.color = this.colour(n);
      this.values.append(value);
      if (x < left - 1 || x > right + 1) return;
      make(this.cursor, "line", {class: "at", x1: x, x2: x, y1: top, y2: bottom});
      make(this.cursor, "circle", {cx: x, cy: y, r: 3.5, fill: this.colour(n)});
    });
  }

  drop(to) {
    const from = this.from;
    this.from = undefined;
    if (from === undefined || Math.abs(to - from) < 8) return;
    const [left, , right] = this.data.box, [low, high] = this.limits();
    const value = (x) => low + ((x - left) / (right - left)) * (high - low);
    this.enlarge([value(Math.min(from, to)), value(Math.max(from, to))]);
  }

  enlarge(part) {
    this.enlarged.replaceChildren();
    this.part = this.range = null;
    const seen = part && this.data.lines.flatMap((line) =>
      line.y.filter((y, i) => y !== null && line.x[i] >= part[0] && line.x[i] <= part[1]));
    if (part && seen.length > 1) {
      const low = Math.min(...seen), high = Math.max(...seen), rim = (high - low) * 0.06 || 0.5;
      this.part = part;
      this.range = [low - rim, high + rim];
      this.draw();
    }
    this.point(-1);
  }

  draw() {
    const g = this.enlarged, [left, top, right, bottom] = this.data.box, [low, high] = this.part;
    const box = this.svg.viewBox.baseVal, id = `part${Live.count++}`;
    make(g, "rect", {class: "cover", x: 0, y: top - 6, width: box.width, height: box.height});
    const clip = make(make(g, "defs", {}), "clipPath", {id});
    make(clip, "rect", {x: left, y: top, width: right - left, height: bottom - top});
    for (const tick of ticks(...this.range, 5)) {
      make(g, "line", {class: "grid", x1: left, x2: right, y1: this.y(tick), y2: this.y(tick)});
      make(g, "text", {x: left - 6, y: this.y(tick) + 3, "text-anchor": "end"}, digits(tick));
    }
    for (const tick of ticks(low, high, 5)) {
      const x = left + ((tick - low) / (high - low)) * (right - left);
      make(g, "line", {class: "grid", x1: x, x2: x, y1: top, y2: bottom});
      make(g, "text", {x, y: bottom + 13, "text-anchor": "middle"}, digits(tick));
    }
    const middle = (left + right) / 2;
    make(g, "text", {x: middle, y: bottom + 26, "text-anchor": "middle"}, this.data.names[0]);
    this.data.lines.forEach((line, n) => {
      const points = line.x.map((_, i) => (line.y[i] === null ? "" :
        `${this.at(line, i).toFixed(1)},${this.y(line.y[i]).toFixed(1)}`)).join(" ");
      make(g, "polyline", {points, stroke: this.colour(n), "clip-path": `url(#${id})`,
        "stroke-dasharray": DASHES[n % 4]});
    });
  }
}
Live.count = 0;

for (const figure of document.querySelectorAll("figure.live")) new Live(figure);
document.documentElement.classList.add("scripted");
