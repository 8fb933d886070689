// An item, with those like it and those that go with it.

import { ask, Refused, told, Waiting } from "/page/api.js";
import { at, element, score, titleOf } from "/page/dom.js";

const BESIDE = 10;
const KINDS = { similar: "Like it", complement: "Going with it" };
const trail = []; // the items opened one from the other

let knows = {};
/** Says what the bundle can tell of items. */
export const itemsOf = (info) => { knows = info; };

/** Opens an item of an answer: `{ item, title }`. */
export function openItem(item) {
  trail.push(item);
  if (!at("item").open) at("item").showModal();
  show(item);
}

at("item-close").addEventListener("click", () => at("item").close());
at("item").addEventListener("close", () => { trail.length = 0; });
at("item").addEventListener("click", (event) => { if (event.target === at("item")) at("item").close(); }); // the backdrop
at("item-back").addEventListener("click", () => {
  trail.pop();
  show(trail.at(-1));
});

async function show(item) {
  at("item-title").textContent = titleOf(item);
  at("item-title").focus();
  at("item-back").hidden = trail.length < 2;
  at("item-facts").replaceChildren(element("p", { class: "soft" }, "…"));
  const kinds = knows.complements ? ["similar", "complement"] : ["similar"];
  const [facts, ...lists] = await Promise.all([described(item), ...kinds.map((kind) => beside(item, kind))]);
  if (trail.at(-1) === item) at("item-facts").replaceChildren(...[facts, ...lists].flat());
}

async function described(item) {
  const found = await settled(() => ask(`/v1/items?${new URLSearchParams({ item: item.item })}`));
  if (found.problem !== undefined) return [found.problem];
  const features = found.items[0]?.features ?? {};
  const link = element("p", {}, element("a", { href: `#/map?${new URLSearchParams({ item: item.item })}`, click: () => at("item").close() }, "Where it stands on the map"));
  return [element("dl", {}, element("dt", {}, "id"), element("dd", {}, item.item), Object.entries(features)
    .filter(([, value]) => String(value) !== item.item)
    .flatMap(([name, value]) => [element("dt", {}, name), element("dd", {}, written(value))])), ...(knows.index ? [link] : [])];
}

/** A raw value. */
export const written = (value) => Array.isArray(value) ? value.join(", ") : String(value);

async function beside(item, kind) {
  const found = await settled(() => ask("/v1/similar", { item: item.item, k: BESIDE, kind }));
  const heading = element("h3", {}, KINDS[kind]);
  if (found.problem !== undefined) return [heading, found.problem];
  if (found.items.length === 0) return [heading, element("p", { class: "soft" }, "No other item.")];
  return [heading, element("ol", { class: "items" }, found.items.map((each) => element("li", {},
    element("button", { type: "button", class: "link", click: () => openItem(each) }, titleOf(each)),
    element("span", { class: "soft number" }, ` ${score(each.score)}`))))];
}

async function settled(asking) {
  try {
    return await asking();
  } catch (error) {
    if (error instanceof Refused) return { problem: element("p", { class: "soft" }, error.problems.map(told).join("; ")) };
    if (error instanceof Waiting) return { problem: element("p", { class: "soft" }, "The server does not answer.") };
    throw error;
  }
}
