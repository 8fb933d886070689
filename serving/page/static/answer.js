// An answer: what is recommended and why, what it was chosen from, and what it took.

import { bar, element, milliseconds, percent, score, titleOf } from "/page/dom.js";
import { openItem } from "/page/item.js";

const DEGRADED = {
  features: "The online store did not answer in time: what the bundle knows of the user stands in.",
  ranker: "The ranker did not answer in time: the items are in the order of retrieval.",
  unknown_user: "Nobody knows this user, and no features came with the request: these are the most popular items.",
  model: "The model process is not there: these are the most popular items.",
};
const RULES = { pinned: "A rule put it here", explored: "Here by chance, to explore" };
const STAGES = { features: "features", retrieve: "retrieval", rank: "ranker", rerank: "rules" };
const WEIGHED = 6; // events and fields of which the weights are shown

let shown = "ranking";

/** The elements of an answer. `took` are the milliseconds that the whole of it took, seen from here. */
export function answered(answer, { info, history, took }) {
  const ranked = answer.items.some((item) => item.why?.ranker_score != null);
  const whom = answer.user === null ? "raw features" : `user ${answer.user}`;
  return [
    element("h2", {}, `For ${whom}`),
    ...(answer.degraded ?? []).map((reason) =>
      element("p", { class: "degraded", role: "alert" }, element("b", {}, "Degraded "), DEGRADED[reason] ?? reason)),
    latency(answer.milliseconds ?? {}, took),
    ...(answer.items.length === 0 ? [element("p", {}, "No item is left to recommend.")] : tables(answer.items, ranked, info, history)),
  ];
}

function latency(stages, took) {
  const known = Object.entries(stages), sum = known.reduce((total, [, value]) => total + value, 0);
  const parts = [...known, ["rest", Math.max(0, took - sum)]];
  const segments = parts.map(([name, value], n) => {
    const segment = element("span", { class: `c${n + 1} ${name === "rest" ? "rest" : ""}` });
    segment.style.flexGrow = String(value);
    return segment;
  });
  return element("div", { class: "latency" },
    element("div", { class: "stack", "aria-hidden": "true" }, segments),
    element("ul", { "aria-label": "Latency by stage" }, parts.map(([name, value], n) => element("li", {},
      element("span", { class: `swatch c${n + 1} ${name === "rest" ? "rest" : ""}`, "aria-hidden": "true" }),
      `${name === "rest" ? "network, web and browser" : STAGES[name] ?? name} ${milliseconds(value)}`))));
}

function tables(items, ranked, info, history) {
  const placed = items.map((item, n) => ({ ...item, place: n + 1, was: item.why?.retrieved ?? (ranked ? null : n + 1) }));
  const parts = { ranking: ranking(placed, ranked, history), candidates: candidates(placed, ranked) };
  const buttons = Object.entries({ ranking: "Final ranking", candidates: "Candidates" }).map(([name, text]) =>
    element("button", { type: "button", "aria-pressed": String(name === shown), "data-part": name, click: () => choose(name) }, text));
  const choose = (name) => {
    shown = name;
    for (const each of buttons) each.setAttribute("aria-pressed", String(each.dataset.part === name));
    for (const [key, part] of Object.entries(parts)) part.hidden = key !== name;
  };
  choose(shown);
  const note = ranked ? null : element("p", { class: "hint" }, info.ranker
    ? "The ranker had no say in this answer." : "This bundle has no ranker: the order is that of retrieval.");
  return [element("div", { class: "switch", role: "group", "aria-label": "Show" }, buttons), note, parts.ranking, parts.candidates].filter((each) => each !== null);
}

function ranking(items, ranked, history) {
  const titles = new Map(history.map((item) => [item.item, titleOf(item)]));
  const share = ranked ? (value) => value : between(items.map((item) => item.score ?? 0));
  const bodies = items.map((item) => rankingRow(item, ranked, share, titles));
  const told = bodies.some(([, why]) => why !== null);
  const columns = ["", "Item", ranked ? "Ranker's score" : "Score", ...(ranked ? ["Retrieved"] : []), ...(told ? ["Why"] : [])];
  return framed("Final ranking, the best first", columns, bodies.flatMap(([row, why, cell]) => {
    if (told) row.append(cell);
    return why === null ? [row] : [row, why];
  }), columns.length);
}

function rankingRow(item, ranked, share, titles) {
  const reasons = why(item, titles);
  const more = reasons === null ? null : element("tr", { class: "why", id: `why-${item.place}`, hidden: true },
    element("td"), element("td", { colspan: 4 }, reasons));
  const button = more && element("button", { type: "button", class: "quiet small", "aria-expanded": "false", "aria-controls": more.id,
    "aria-label": `Why ${titleOf(item)}`, click: () => {
      more.hidden = !more.hidden;
      button.setAttribute("aria-expanded", String(!more.hidden));
    } }, "why");
  const row = element("tr", {},
    element("td", { class: "number soft" }, String(item.place)),
    element("th", { scope: "row" }, named(item), ...rules(item)),
    element("td", { class: "number" }, item.score == null ? "–" : [bar(share(item.score)), score(item.score)]),
    ranked ? element("td", {}, moved(item)) : null);
  return [row, more, element("td", {}, button)];
}

/** Where it stood after retrieval, and whether it has come up or gone down since. */
function moved(item) {
  if (item.was === null) return [element("span", { class: "soft" }, "not by retrieval")];
  const by = item.was - item.place;
  const [kind, text, said] = by > 0 ? ["up", `▲ ${by}`, `up ${by}`] : by < 0 ? ["down", `▼ ${-by}`, `down ${-by}`] : ["same", "=", "same place"];
  return [`${item.was} `, element("span", { class: `move ${kind}`, role: "img", "aria-label": said }, text),
    item.why?.retrieval_score == null ? null : element("span", { class: "soft" }, ` ${score(item.why.retrieval_score)}`)];
}

/** Whether it stands elsewhere than the ranker put it, and no rule says that it is to stand here. */
const gaveWay = (item) => item.why?.ranked != null && item.why.ranked !== item.place && !item.why.rules?.length;

const rules = (item) => (item.why?.rules ?? []).map((rule) => element("span", { class: "tag", title: RULES[rule] ?? rule }, rule));

const named = (item) => element("button", { type: "button", class: "link", click: () => openItem(item) }, titleOf(item));

/** What moved it, and what the ranker looked at; null where nothing is known. */
function why(item, titles) {
  const reasons = item.why ?? {};
  const parts = [
    ...(reasons.rules ?? []).map((rule) => element("p", {}, `${RULES[rule] ?? rule}.`)),
    gaveWay(item) ? element("p", {}, `The ranker had it at ${reasons.ranked}: it or others moved by rules, caps or diversity.`) : null,
    item.propensity == null ? null : element("p", {}, `It stands here with probability ${percent(item.propensity)}.`),
    weights("What the history weighed", reasons.history, (id) => titles.get(id) ?? id),
    weights("What the ranker's attention went to", reasons.fields, (name) => name),
  ].filter((part) => part !== null);
  return parts.length ? parts : null;
}

function weights(title, found, nameOf) {
  const all = Object.entries(found ?? {}).sort(([, a], [, b]) => b - a);
  if (all.length === 0) return null;
  const best = all.slice(0, WEIGHED), most = Math.max(best[0][1], 1e-9), left = all.length - best.length;
  return element("div", { class: "weights" }, element("h3", {}, title),
    element("ul", {}, best.map(([name, weight]) =>
      element("li", {}, element("span", { class: "of" }, nameOf(name)), bar(weight / most), element("span", { class: "number" }, score(weight))))),
    left > 0 ? element("p", { class: "hint" }, `and ${left} that weighed less`) : null);
}

/** Inner products have no zero of their own: their bars go from the least of the answer to its greatest. */
function between(scores) {
  const low = Math.min(...scores), high = Math.max(...scores);
  return (value) => (high > low ? 0.04 + (0.96 * (value - low)) / (high - low) : 1);
}

function candidates(items, ranked) {
  const known = items.filter((item) => item.was !== null).sort((a, b) => a.was - b.was);
  const scores = known.map((item) => item.why?.retrieval_score ?? item.score ?? 0);
  const share = between(scores), columns = ["", "Item", "Retrieval's score", ...(ranked ? ["In the end"] : [])];
  const rows = known.map((item, n) => element("tr", {},
    element("td", { class: "number soft" }, String(item.was)),
    element("th", { scope: "row" }, named(item)),
    element("td", { class: "number" }, bar(share(scores[n])), score(scores[n])),
    ranked ? element("td", { class: "number" }, String(item.place)) : null));
  return framed(ranked ? "The candidates that came through, as retrieval had them" : "The candidates, as retrieval had them", columns, rows);
}

function framed(caption, columns, rows) {
  return element("div", { class: "scroll", role: "region", "aria-label": caption, tabindex: 0 },
    element("table", { class: "ranking" }, element("caption", { class: "hidden" }, caption),
      element("thead", {}, element("tr", {}, columns.map((name) => name
        ? element("th", { scope: "col", class: /score|end/.test(name.toLowerCase()) && "number" }, name)
        : element("th", { scope: "col", class: "number" }, element("span", { class: "hidden" }, "Place"), "#")))),
      element("tbody", {}, rows)));
}
