// Recall and time of every setting of the index that was measured, as the run's report draws them.

import { drawn, element, table, whole } from "/page/dom.js";

const WIDTH = 460, HEIGHT = 300, LEFT = 62, RIGHT = 16, TOP = 26, BOTTOM = 50, STYLES = 6;

export function curveChart(curve) {
  const metric = Object.keys(curve.points[curve.chosen].recall).sort((a, b) => cutOf(b) - cutOf(a))[0];
  const points = curve.points.map((each) => ({
    layout: each.layout.leaves ? `${whole(each.layout.leaves)} leaves` : "no leaves",
    x: each.milliseconds.estimate, y: each.recall[metric].estimate, low: each.recall[metric].low, high: each.recall[metric].high,
    setting: each.setting,
  }));
  const layouts = [...new Set(points.map((each) => each.layout))];
  const x = scale(points.map((each) => Math.log10(each.x)), LEFT, WIDTH - RIGHT), y = scale(points.flatMap((each) => [each.low, each.high]), HEIGHT - BOTTOM, TOP, 1);
  const placed = points.map((each) => ({ ...each, px: x.at(Math.log10(each.x)), py: y.at(each.y) }));
  const best = placed[curve.chosen];
  const said = `${metric} against exact search, of ${points.length} settings, by milliseconds for one query; over ${whole(curve.queries)} held-out queries.`;
  return element("figure", {},
    element("figcaption", { id: "curve-title" }, `${metric} by milliseconds for one query`),
    drawn("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-labelledby": "curve-title curve-said" },
      drawn("desc", { id: "curve-said" }, said),
      axes(x, y),
      layouts.flatMap((name, n) => series(placed.filter((each) => each.layout === name), n % STYLES, y)),
      drawn("circle", { class: "ring", cx: best.px, cy: best.py, r: 9 })),
    element("ul", { class: "key", "aria-label": "Lines" },
      layouts.map((name, n) => element("li", {}, sample([drawn("path", { class: `line s${n % STYLES}`, d: "M2 7H32" }), drawn("circle", { class: `m${n % STYLES}`, cx: 17, cy: 7, r: 4 })]), name)),
      element("li", {}, sample([drawn("circle", { class: "ring", cx: 17, cy: 7, r: 6 })]), "chosen")),
    element("details", {}, element("summary", {}, "The numbers"),
      table(said, [{ name: "ms", number: true }, { name: metric, number: true }, { name: "Layout" }, { name: "Leaves searched", number: true }, { name: "Scored again", number: true }],
        points.map((each) => [each.x.toFixed(3), each.y.toFixed(4), each.layout, whole(each.setting.leaves_to_search), whole(each.setting.reorder)]), true)));
}

const cutOf = (name) => Number(name.split("@")[1]);
const sample = (parts) => drawn("svg", { viewBox: "0 0 34 14", "aria-hidden": "true" }, parts);

function scale(values, from, to, most = Infinity) {
  let [low, high] = [Math.min(...values), Math.max(...values)];
  const pad = 0.06 * (high - low) || 0.1 * Math.abs(high) || 0.5;
  [low, high] = [low - pad, Math.min(high + pad, most)];
  return { low, high, at: (value) => from + ((value - low) / (high - low)) * (to - from) };
}

function axes(x, y) {
  const right = WIDTH - RIGHT, bottom = HEIGHT - BOTTOM;
  const rises = rounds(y.low, y.high), digits = Math.max(0, Math.ceil(-Math.log10(rises.step)));
  return [
    rises.values.flatMap((value) => [
      drawn("line", { class: "axis", x1: LEFT, x2: right, y1: y.at(value), y2: y.at(value) }),
      drawn("text", { x: LEFT - 8, y: y.at(value) + 4, "text-anchor": "end" }, value.toFixed(digits))]),
    logs(x.low, x.high).flatMap((value) => {
      const place = x.at(Math.log10(value));
      return [drawn("line", { class: "axis", x1: place, x2: place, y1: bottom, y2: bottom + 5 }),
        drawn("text", { x: place, y: bottom + 19, "text-anchor": "middle" }, String(Number(value.toPrecision(2))))];
    }),
    drawn("text", { x: (LEFT + right) / 2, y: HEIGHT - 6, "text-anchor": "middle" }, "milliseconds for one query"),
  ].flat();
}

/** Some round numbers between two. */
function rounds(low, high) {
  const rough = (high - low) / 4, power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((each) => each * power).find((each) => each >= rough);
  const values = [];
  for (let n = Math.ceil(low / step); n * step <= high; n++) values.push(n * step);
  return { step, values };
}

/** Round numbers between 10^low and 10^high, fewer the wider they are apart. */
function logs(low, high) {
  const steps = high - low > 1.5 ? [1] : high - low > 0.6 ? [1, 2, 5] : [1, 1.5, 2, 3, 4, 5, 6, 8];
  const values = [];
  for (let power = Math.floor(low); power <= high; power++) for (const step of steps) values.push(step * 10 ** power);
  return values.filter((value) => Math.log10(value) >= low && Math.log10(value) <= high);
}

function series(points, style, y) {
  const sorted = points.toSorted((a, b) => a.px - b.px);
  return [
    drawn("path", { class: `line s${style}`, d: sorted.map((each, n) => `${n ? "L" : "M"}${each.px.toFixed(1)} ${each.py.toFixed(1)}`).join("") }),
    ...sorted.flatMap((each) => [
      drawn("line", { class: `whisker s${style}`, x1: each.px, x2: each.px, y1: y.at(each.low), y2: y.at(each.high) }),
      drawn("circle", { class: `m${style}`, cx: each.px, cy: each.py, r: 4 }, drawn("title", {}, `${each.y.toFixed(4)} at ${each.x.toFixed(3)} ms`))]),
  ];
}
