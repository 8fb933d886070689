// The third view: what the bundle is, and how good it was found to be.

import { at, element, score, table, whole } from "/page/dom.js";
import { curveChart } from "/page/curve.js";

let shown = null;

export async function bundleView(info) {
  if (shown === info) return;
  shown = info;
  at("bundle-facts").replaceChildren(
    section("Facts", facts(info)),
    section("Metrics", metrics(info.metrics), "Over all items, of users and events that were not trained on."),
    ...(info.index ? [section("Index", [index(info.index), info.curve && curveChart(info.curve)])] : []),
    section("Features", [element("h3", {}, "Of a request"), fields(info.request), element("h3", {}, "Of an item"), fields(info.item)]),
  );
}

const section = (title, content, note = null) =>
  element("section", {}, element("h2", {}, title), content, note && element("p", { class: "hint" }, note));

const definitions = (pairs) => element("dl", {}, pairs.flatMap(([name, text]) => [element("dt", {}, name), element("dd", {}, text)]));

function facts(info) {
  return definitions([
    ["Name", info.bundle.name],
    ["Version", String(info.bundle.version)],
    ["Kind", info.kind],
    ["Catalogue", `${whole(info.catalogue_size)} items`],
    ...(info.embedding_dim ? [["Embeddings", `${info.embedding_dim} wide`]] : []),
    ["Made with", Object.entries(info.versions).filter(([, of]) => of).map(([name, of]) => `${name} ${of}`).join(", ")],
  ]);
}

/** `recall@10` in the row recall and the column 10; what has no cut-off by itself. */
function metrics(found) {
  const cut = Object.entries(found).filter(([name]) => name.includes("@")).map(([name, value]) => [...name.split("@"), value]);
  const ks = [...new Set(cut.map(([, k]) => Number(k)))].sort((a, b) => a - b), names = [...new Set(cut.map(([name]) => name))];
  const others = Object.entries(found).filter(([name]) => !name.includes("@"));
  const parts = [];
  if (names.length) {
    const value = (name, k) => cut.find(([n, at]) => n === name && Number(at) === k)?.[2];
    parts.push(table("Test metrics by cut-off", [{ name: "Metric" }, ...ks.map((k) => ({ name: `@${k}`, number: true }))],
      names.map((name) => [name, ...ks.map((k) => value(name, k) === undefined ? "" : value(name, k).toFixed(4))]), true));
  }
  if (others.length) parts.push(table("Other test metrics", [{ name: "Metric" }, { name: "Value", number: true }], others.map(([name, value]) => [name, score(value)]), true));
  return element("div", {}, parts.length ? parts : element("p", { class: "soft" }, "None are stored."));
}

function index(found) {
  const promise = Object.entries(found.promise ?? {}).map(([name, value]) => `${name} at least ${value}`).join(", ");
  return definitions([
    ["Kind", { exact: "exact: every item is scored", scann: "ScaNN" }[found.kind]],
    [`Recall@${found.k}`, found.recall_low == null ? String(found.recall) : `${found.recall.toFixed(4)}, surely above ${found.recall_low.toFixed(4)}`],
    ...(promise ? [["Promise", promise]] : []),
    ...(found.milliseconds == null ? [] : [["One query", `${found.milliseconds.toFixed(2)} ms, where it was exported`]]),
  ]);
}

function fields(found) {
  const rows = Object.entries(found).map(([name, { kind, role, ...more }]) =>
    [name, kind.replace("_", "-"), role, Object.entries(more).filter(([, value]) => value !== false).map(([key, value]) => `${key} ${value}`).join(", ")]);
  return rows.length ? table("Fields", [{ name: "Field" }, { name: "Kind" }, { name: "Of" }, { name: "" }], rows, true) : element("p", { class: "soft" }, "Nothing.");
}
