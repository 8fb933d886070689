// Points on one canvas: drawn, moved, zoomed, pointed at. It knows nothing of items.

import { Grid } from "/page/grid.js";

const MARGIN = 0.92, CLOSEST = 200, STEP = 0.15, ZOOM = 1.5;
const ROUND = 20_000; // points that are drawn as discs; of more, squares
const REACH = 14; // CSS pixels from the pointer within which a point is meant

export class Plane {
  /** `onPoint(what)` when another point is pointed at, `onPick(what)` when it is chosen. A `what` is
   * `{ point }`, `{ mark }` or null. */
  constructor(canvas, { onPoint, onPick }) {
    Object.assign(this, { canvas, onPoint, onPick, marks: [], only: null, pointed: null, frame: 0, pointers: new Map() });
    this.view = { x: 0, y: 0, zoom: 1 };
    this.extent = { x: 1, y: 1 };
    new ResizeObserver(() => this.draw()).observe(canvas);
    this.#listen();
  }

  /** @param {Float32Array} places x, y of each point, from -1 to 1. */
  load(places) {
    this.places = places;
    this.grid = new Grid(places);
    const reach = (axis) => places.reduce((most, value, n) => (n % 2 === axis ? Math.max(most, Math.abs(value)) : most), 1e-3);
    this.extent = { x: reach(0), y: reach(1) };
    this.fit();
  }

  /** @param {Uint16Array} codes of each point; `colours[code]` is its colour, later codes are drawn over earlier ones,
   * but the last lies lowest, as code 0 does. */
  colour(codes, colours) {
    const starts = new Uint32Array(colours.length + 1);
    for (const code of codes) starts[code + 1]++;
    for (let code = 0; code < colours.length; code++) starts[code + 1] += starts[code];
    const next = starts.slice(), order = new Uint32Array(codes.length);
    for (let n = 0; n < codes.length; n++) order[next[codes[n]]++] = n;
    Object.assign(this, { codes, colours, starts, order });
    this.draw();
  }

  /** Shows one code's points alone in their colour; all if it is null. */
  isolate(code) {
    this.only = code;
    this.draw();
  }

  /** @param {{x: number, y: number, kind: string, label: string}[]} marks drawn over the points, the first on top. */
  mark(marks, style) {
    Object.assign(this, { marks, style });
    this.draw();
  }

  fit() {
    this.view = { x: 0, y: 0, zoom: 1 };
    this.draw();
  }

  /** Brings a place to the middle. */
  centre(x, y) {
    Object.assign(this.view, { x, y });
    this.#clamp();
    this.draw();
  }

  zoomBy(factor, px = this.canvas.clientWidth / 2, py = this.canvas.clientHeight / 2) {
    const before = this.#unscreen(px, py);
    this.view.zoom = Math.max(1, Math.min(CLOSEST, this.view.zoom * factor));
    const after = this.#unscreen(px, py);
    this.view.x += before.x - after.x;
    this.view.y += before.y - after.y;
    this.#clamp();
    this.draw();
  }

  /** Where a place stands, in CSS pixels of the canvas. */
  screen(x, y) {
    const scale = this.#scale();
    return { x: this.canvas.clientWidth / 2 + (x - this.view.x) * scale, y: this.canvas.clientHeight / 2 - (y - this.view.y) * scale };
  }

  /** The place of a `what`. */
  placeOf(what) {
    return what.mark ?? { x: this.places[2 * what.point], y: this.places[2 * what.point + 1] };
  }

  pointAt(what) {
    const same = what?.point === this.pointed?.point && what?.mark === this.pointed?.mark;
    this.pointed = what;
    if (!same) this.onPoint(what);
  }

  draw() {
    if (this.frame || !this.order) return;
    this.frame = requestAnimationFrame(() => {
      this.frame = 0;
      this.#paint();
    });
  }

  #paint() {
    const { canvas } = this, sharp = devicePixelRatio || 1;
    const width = Math.round(canvas.clientWidth * sharp), height = Math.round(canvas.clientHeight * sharp);
    if (!width || !height) return;
    if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
    const context = canvas.getContext("2d");
    context.clearRect(0, 0, width, height);
    const size = sharp * this.#size(), scale = this.#scale() * sharp;
    const frame = { context, size, scale, width, height, left: width / 2 - this.view.x * scale, top: height / 2 + this.view.y * scale };
    const last = this.colours.length - 1, codes = [0, last, ...Array.from({ length: Math.max(0, last - 1) }, (_, n) => n + 1)];
    for (const code of new Set(codes)) if (code !== this.only) this.#paintCode(code, this.only === null ? this.colours[code] : this.colours[0], frame);
    if (this.only !== null) this.#paintCode(this.only, this.colours[this.only], frame);
    for (const mark of this.marks.toReversed()) this.#paintMark(mark, context, sharp);
    if (this.pointed) this.onPoint(this.pointed); // it has moved
  }

  #paintCode(code, colour, { context, size, scale, width, height, left, top }) {
    const { order, places } = this, half = size / 2, round = size > 2.5 && order.length <= ROUND;
    context.fillStyle = colour;
    for (let place = this.starts[code]; place < this.starts[code + 1]; place++) {
      const point = order[place], x = left + places[2 * point] * scale, y = top - places[2 * point + 1] * scale;
      if (x < -size || y < -size || x > width + size || y > height + size) continue;
      if (!round) context.fillRect(x - half, y - half, size, size);
      else {
        context.beginPath();
        context.arc(x, y, half, 0, 7);
        context.fill();
      }
    }
  }

  #paintMark({ x, y, kind, label }, context, sharp) {
    const place = this.screen(x, y), style = this.style[kind], radius = label ? 9 : 6;
    context.save();
    context.setTransform(sharp, 0, 0, sharp, place.x * sharp, place.y * sharp);
    context.beginPath();
    if (label) context.arc(0, 0, radius, 0, 7);
    else context.rect(-radius * 0.75, -radius * 0.75, radius * 1.5, radius * 1.5);
    context.fillStyle = style.fill;
    context.fill();
    context.lineWidth = 2;
    context.strokeStyle = style.line;
    context.stroke();
    if (label) {
      context.fillStyle = style.line;
      context.font = "600 10px system-ui, sans-serif";
      Object.assign(context, { textAlign: "center", textBaseline: "middle" });
      context.fillText(label, 0, 0.5);
    }
    context.restore();
  }

  /** A point's width in CSS pixels: the fewer there are on the screen, the wider. */
  #size() {
    const crowd = Math.sqrt((this.canvas.clientWidth * this.canvas.clientHeight) / Math.max(1, this.codes.length));
    return Math.max(1.6, Math.min(12, 0.45 * crowd * Math.sqrt(this.view.zoom)));
  }

  #scale() {
    const { canvas, extent, view } = this;
    return (MARGIN * view.zoom * Math.min(canvas.clientWidth / extent.x, canvas.clientHeight / extent.y)) / 2;
  }

  #unscreen(px, py) {
    const scale = this.#scale();
    return { x: this.view.x + (px - this.canvas.clientWidth / 2) / scale, y: this.view.y - (py - this.canvas.clientHeight / 2) / scale };
  }

  #clamp() {
    for (const axis of ["x", "y"]) this.view[axis] = Math.max(-1, Math.min(1, this.view[axis]));
  }

  /** What stands at a place of the canvas: a mark before a point. */
  #under(px, py) {
    if (!this.grid) return null;
    for (const mark of this.marks) {
      const place = this.screen(mark.x, mark.y);
      if (Math.hypot(place.x - px, place.y - py) <= REACH) return { mark };
    }
    const { x, y } = this.#unscreen(px, py);
    const allowed = this.only === null ? undefined : (point) => this.codes[point] === this.only;
    const point = this.grid.nearest(x, y, REACH / this.#scale(), allowed);
    return point < 0 ? null : { point };
  }

  #listen() {
    const { canvas } = this;
    canvas.addEventListener("wheel", (event) => {
      event.preventDefault();
      this.zoomBy(Math.exp(-event.deltaY * (event.deltaMode ? 0.05 : 0.0015)), event.offsetX, event.offsetY);
    }, { passive: false });
    canvas.addEventListener("pointerdown", (event) => {
      canvas.setPointerCapture(event.pointerId);
      this.pointers.set(event.pointerId, { x: event.offsetX, y: event.offsetY });
      this.moved = this.pointers.size > 1 ? Infinity : 0;
    });
    canvas.addEventListener("pointermove", (event) => this.#move(event));
    for (const name of ["pointerup", "pointercancel"]) canvas.addEventListener(name, (event) => this.#lift(event));
    canvas.addEventListener("pointerleave", () => { if (!this.pointers.size) this.pointAt(null); });
    canvas.addEventListener("keydown", (event) => this.#press(event));
    canvas.addEventListener("blur", () => this.pointAt(null));
  }

  #move(event) {
    const { offsetX: x, offsetY: y } = event, before = this.pointers.get(event.pointerId);
    if (!before) return this.pointAt(this.#under(x, y));
    const other = [...this.pointers].find(([id]) => id !== event.pointerId)?.[1];
    if (other) {
      const factor = Math.hypot(x - other.x, y - other.y) / Math.max(1, Math.hypot(before.x - other.x, before.y - other.y));
      this.zoomBy(factor, (x + other.x) / 2, (y + other.y) / 2);
    } else {
      this.moved += Math.hypot(x - before.x, y - before.y);
      const scale = this.#scale();
      this.view.x -= (x - before.x) / scale;
      this.view.y += (y - before.y) / scale;
      this.#clamp();
      this.draw();
    }
    this.pointers.set(event.pointerId, { x, y });
  }

  #lift(event) {
    if (!this.pointers.delete(event.pointerId) || event.type === "pointercancel" || this.moved > 4) return;
    const what = this.#under(event.offsetX, event.offsetY);
    this.pointAt(what);
    if (what) this.onPick(what);
  }

  #press(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const step = (STEP * this.canvas.clientHeight) / this.#scale();
    const moves = { ArrowLeft: [-step, 0], ArrowRight: [step, 0], ArrowUp: [0, step], ArrowDown: [0, -step] };
    const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
    if (key in moves) {
      this.centre(this.view.x + moves[key][0], this.view.y + moves[key][1]);
      this.#pointAtMiddle();
    } else if (key === "+" || key === "=") this.#zoomAtMiddle(ZOOM);
    else if (key === "-") this.#zoomAtMiddle(1 / ZOOM);
    else if (key === "0") this.fit();
    else if (key === "n" || key === "p") this.#turnToMark(key === "n" ? 1 : -1);
    else if (key === "Enter" && this.pointed) this.onPick(this.pointed);
    else return;
    event.preventDefault();
  }

  #zoomAtMiddle(factor) {
    this.zoomBy(factor);
    this.#pointAtMiddle();
  }

  #pointAtMiddle() {
    const point = this.grid ? this.grid.nearest(this.view.x, this.view.y, 2) : -1;
    this.pointAt(point < 0 ? null : { point });
  }

  #turnToMark(by) {
    if (!this.marks.length) return;
    const now = this.marks.indexOf(this.pointed?.mark);
    const mark = this.marks[(now + by + this.marks.length + (now < 0 && by < 0 ? 1 : 0)) % this.marks.length];
    this.centre(mark.x, mark.y);
    this.pointAt({ mark });
  }
}
