// The second view: the catalogue as points, with what the last answer was about.

import { ask, bytes } from "/page/api.js";
import { at, element, titleOf, whole } from "/page/dom.js";
import { openItem, written } from "/page/item.js";
import { Plane } from "/page/plane.js";
import { session } from "/page/recommend.js";

const PAUSE = 400; // milliseconds between two looks whether the map is drawn
const CLOSE = 4; // how near an item is brought that is looked for
const MARKED = 50; // items of an answer and of a history that are marked, at most

let version = null, legend = null, rows = null, columns = [], chosen = 0;
const known = new Map(); // row -> what the server says of the item

const plane = new Plane(at("points"), { onPoint: pointedAt, onPick: open });

export async function mapView(info, query) {
  const now = `${info.bundle.name} ${info.bundle.version}`;
  if (version !== now && !(await load(info))) return;
  version = now;
  await markItems(query.get("item"));
  showLegend();
}

async function load(info) {
  at("map-about").textContent = "The map is being drawn …";
  let drawn = await bytes("/v1/map");
  while (drawn === null) {
    await new Promise((done) => setTimeout(done, PAUSE));
    if (at("map").hidden) return false;
    drawn = await bytes("/v1/map");
  }
  legend = await ask("/v1/map/legend");
  const count = legend.points;
  rows = new Uint32Array(drawn, 8 * count, count);
  columns = legend.columns.map((column, n) => ({ ...column, codes: new Uint16Array(drawn, 12 * count + 2 * n * count, count) }));
  known.clear();
  plane.load(new Float32Array(drawn, 0, 2 * count));
  choose(0);
  const all = count === legend.catalogue_size ? `${whole(count)} items` : `The most popular and some of the other items, ${whole(count)} of ${whole(legend.catalogue_size)}`;
  at("map-about").textContent = `${all}. Items that are near each other are alike to ${info.bundle.name}; up, down, left and right mean nothing.`;
  return true;
}

/** Colours by a column of the legend. */
function choose(n) {
  chosen = n;
  plane.only = null;
  const column = columns[n];
  if (column) plane.colour(column.codes, palette(column.values.length));
  else plane.colour(new Uint16Array(rows.length), [colourOf("p1")]);
}

const palette = (values) => [colourOf("p0"), ...Array.from({ length: values }, (_, n) => colourOf(`p${n + 1}`)), colourOf("px")];

/** What a class of the style sheet makes of text: the browser knows which theme it is. */
function colourOf(name) {
  const probe = element("span", { class: name, hidden: true });
  document.body.append(probe);
  const colour = getComputedStyle(probe).color;
  probe.remove();
  return colour;
}

function showLegend() {
  const column = columns[chosen];
  const parts = [];
  if (columns.length > 1) {
    const select = element("select", { id: "colour-by", change: () => { choose(select.selectedIndex); showLegend(); } },
      columns.map((each, n) => element("option", { selected: n === chosen }, each.name)));
    parts.push(element("label", {}, "Colour by ", select));
  }
  if (column) parts.push(element("h2", {}, column.name), element("ul", { class: "colours" }, entries(column)));
  parts.push(...marked("Recommended", "recommended", session.user === null ? "" : ` to ${session.user}`), ...marked("History", "history", ""));
  if (!session.items.length) parts.push(element("p", { class: "hint" }, "What is recommended to a user is marked here, with the history."));
  at("legend").replaceChildren(...parts);
}

function entries(column) {
  const last = column.values.length + 1, counts = new Map();
  for (const code of column.codes) counts.set(code, (counts.get(code) ?? 0) + 1);
  const all = [...column.values.map((each, n) => [n + 1, `p${n + 1}`, each.name]), [last, "px", "other"], [0, "p0", "none"]];
  return all.filter(([code]) => counts.has(code)).map(([code, name, text]) => {
    const button = element("button", { type: "button", class: "entry", "aria-pressed": "false", click: () => {
      const on = plane.only !== code;
      for (const each of at("legend").querySelectorAll(".entry")) each.setAttribute("aria-pressed", String(on && each === button));
      plane.isolate(on ? code : null);
    } }, element("span", { class: `dot ${name}`, "aria-hidden": "true" }), element("span", { class: "of" }, text),
    element("span", { class: "soft number" }, whole(counts.get(code))));
    return element("li", {}, button);
  });
}

function marked(title, kind, more) {
  const marks = plane.marks.filter((mark) => mark.kind === kind);
  if (!marks.length) return [];
  const list = element(kind === "recommended" ? "ol" : "ul", { class: `items marked ${kind}` }, marks.map((mark) => element("li", {},
    element("button", { type: "button", class: "link", click: () => openItem(mark.item),
      focus: () => turnTo(mark), mouseenter: () => plane.pointAt({ mark }), mouseleave: () => plane.pointAt(null) }, titleOf(mark.item)))));
  return [element("h2", {}, title + more), list];
}

function turnTo(mark) {
  plane.pointAt({ mark });
}

/** What was recommended, the history, and before all the item that is looked for, if one is. */
async function markItems(sought) {
  const recommended = session.items.slice(0, MARKED), liked = session.history.slice(0, MARKED);
  const both = [...(sought === null ? [] : [{ item: { item: sought }, kind: "sought", label: "●" }]), ...recommended.map((item, n) => ({ item, kind: "recommended", label: String(n + 1) })), ...liked.map((item) => ({ item, kind: "history", label: "" }))];
  const places = new Map();
  if (both.length) {
    const query = new URLSearchParams([["places", "true"], ...both.map(({ item }) => ["item", item.item])]);
    for (const each of (await ask(`/v1/items?${query}`)).items) if (each.place) places.set(each.item, each);
  }
  const marks = both.filter(({ item }) => places.has(item.item)).map((mark) => {
    const { row, place: [x, y] } = places.get(mark.item.item);
    known.set(row, places.get(mark.item.item));
    return { ...mark, row, x, y };
  });
  plane.mark(marks, styles());
  if (marks[0]?.kind === "sought") {
    plane.zoomBy(CLOSE / plane.view.zoom);
    plane.centre(marks[0].x, marks[0].y);
    plane.pointAt({ mark: marks[0] });
  }
}

const styles = () => ({
  recommended: { fill: colourOf("mark-fill"), line: colourOf("mark-line") },
  sought: { fill: colourOf("mark-line"), line: colourOf("mark-fill") },
  history: { fill: colourOf("past-fill"), line: colourOf("past-line") },
});

addEventListener("themechange", () => {
  if (!rows) return;
  const only = plane.only;
  choose(chosen);
  plane.isolate(only);
  plane.mark(plane.marks, styles());
});

const rowOf = (what) => what.mark?.row ?? rows[what.point];

async function pointedAt(what) {
  const [ring, tip] = [at("ring"), at("tip")];
  ring.hidden = tip.hidden = what === null;
  if (what === null) return;
  const { x, y } = plane.placeOf(what), place = plane.screen(x, y), row = rowOf(what);
  ring.style.transform = `translate(${place.x}px, ${place.y}px)`;
  tip.style.transform = `translate(${Math.min(place.x + 12, at("plane").clientWidth - 230)}px, ${place.y + (place.y > at("plane").clientHeight - 90 ? -70 : 12)}px)`;
  if (!known.has(row)) {
    tip.replaceChildren("…");
    await fetched(row);
    if (!plane.pointed || rowOf(plane.pointed) !== row) return;
  }
  const item = known.get(row);
  if (tip.dataset.row === String(row) && tip.childElementCount) return;
  tip.dataset.row = row;
  const column = columns[chosen], value = item?.features[column?.name];
  tip.replaceChildren(element("b", {}, item ? titleOf(item) : `item ${row}`), element("span", { class: "soft" }, value === undefined ? "" : written(value)));
  at("named").textContent = tip.textContent;
}

/** Asks for the item of a row, together with others that are asked for within a moment. */
function fetched(row) {
  fetched.rows ??= new Set();
  fetched.rows.add(row);
  fetched.next ??= new Promise((done) => setTimeout(done, 40)).then(async () => {
    const query = new URLSearchParams([...fetched.rows].slice(-20).map((each) => ["row", each]));
    fetched.rows = fetched.next = undefined;
    for (const item of (await ask(`/v1/items?${query}`)).items) known.set(item.row, item);
  });
  return fetched.next;
}

async function open(what) {
  const row = rowOf(what);
  if (!known.has(row)) await fetched(row);
  if (known.has(row)) openItem(known.get(row));
}

at("nearer").addEventListener("click", () => plane.zoomBy(1.5));
at("farther").addEventListener("click", () => plane.zoomBy(1 / 1.5));
at("fit").addEventListener("click", () => plane.fit());
