// The first view: who asks, and what is recommended.

import { ask, Refused, told, Waiting } from "/page/api.js";
import { at, element, titleOf, whole } from "/page/dom.js";
import { answered } from "/page/answer.js";
import { openItem } from "/page/item.js";

const HISTORY = 100, SUGGESTIONS = 12, EXAMPLES = 4;
const KINDS = {
  categorical: () => ["one value", '"value"'],
  multi_valued: (field) => [`values, the first ${field.max_length} count`, '["value"]'],
  sequence: (field) => [`values of ${field.of}, oldest first, the newest ${field.max_length} count`, '["value"]'],
  numeric: () => ["a number", "1.0"],
  vector: (field) => [`${field.dim} numbers`, "[…]"],
};

/** What is shown: the last answer and the history of its user, for other views to mark. */
export const session = { user: null, items: [], history: [] };

let info = null, asked = null;

export async function recommendView(found, query) {
  if (info !== found) schema(found.request);
  info = found;
  if (!at("some-users").hasChildNodes()) await someUsers();
  if (query.size === 0) return;
  for (const name of ["user", "features"]) at(name).value = query.get(name) ?? "";
  at("k").value = query.get("k") ?? at("k").value;
  at("seen").checked = query.get("seen") === "1";
  if (at("features").value) at("raw").open = true;
  await recommend();
}

at("ask").addEventListener("submit", (event) => {
  event.preventDefault();
  const query = new URLSearchParams();
  for (const name of ["user", "features"]) if (at(name).value.trim()) query.set(name, at(name).value.trim());
  query.set("k", at("k").value);
  if (at("seen").checked) query.set("seen", "1");
  const hash = `#/recommend?${query}`;
  if (location.hash === hash) recommend();
  else location.hash = hash; // which asks: so an answer can be linked to, and left by the browser's way back
});

at("user").addEventListener("input", async () => {
  const users = await knownUsers(at("user").value, SUGGESTIONS).catch(() => []);
  at("users").replaceChildren(...users.map((value) => element("option", { value })));
});

async function knownUsers(prefix, count) {
  return (await ask(`/v1/users?${new URLSearchParams({ prefix, count })}`)).users;
}

async function someUsers() {
  const users = await knownUsers("", EXAMPLES);
  at("some-users").replaceChildren(...(users.length ? ["Such as "] : ["The bundle knows no users: give raw features."]),
    ...users.flatMap((user, n) => [n ? ", " : "", element("a", { href: `#/recommend?${new URLSearchParams({ user, k: 20 })}` }, user)]));
  at("raw").open ||= users.length === 0;
}

/** The fields of a request, each with a place for what the server says of it. */
function schema(fields) {
  const rows = Object.entries(fields).flatMap(([name, field]) => {
    const [takes, example] = KINDS[field.kind](field);
    const row = [schemaRow(name, `${takes} · ${field.role}`, example)];
    return field.age ? [...row, schemaRow(`${name}.age`, `seconds before the request, one for each of ${name}`, "[60.0]")] : row;
  });
  at("schema").tBodies[0].replaceChildren(...rows);
}

function schemaRow(name, takes, example) {
  const add = element("button", { type: "button", class: "link", click: () => addField(name, example) }, name);
  return element("tr", { "data-field": name },
    element("th", { scope: "row" }, add),
    element("td", {}, element("span", { class: "soft" }, takes), element("p", { class: "problem" })));
}

/** Puts a field with an example into the JSON, if that is sound. */
function addField(name, example) {
  const text = at("features").value.trim();
  const known = parsed(text || "{}");
  if (known === null || name in known) return at("features").focus();
  const entry = `  ${JSON.stringify(name)}: ${example}`;
  const inside = text.replace(/^\{|\}$/g, "").trimEnd();
  at("features").value = inside.trim() ? `{${inside},\n${entry}\n}` : `{\n${entry}\n}`;
  at("features").focus();
}

function parsed(text) {
  try {
    const value = JSON.parse(text);
    return value !== null && typeof value === "object" && !Array.isArray(value) ? value : null;
  } catch {
    return null;
  }
}

async function recommend() {
  clearProblems();
  const request = requestOf();
  if (request === null) return;
  const own = Symbol("request");
  asked = own;
  at("answer").setAttribute("aria-busy", "true");
  try {
    const start = performance.now();
    const [answer, history] = await Promise.all([ask("/v1/recommend", request), historyOf(request.user)]);
    if (asked !== own) return; // another request has come since
    const took = performance.now() - start;
    Object.assign(session, { user: answer.user, items: answer.items, history });
    at("answer").replaceChildren(...answered(answer, { info, history, took }));
    showHistory(history, request.user);
  } catch (error) {
    if (error instanceof Refused) showProblems(error.problems);
    else if (!(error instanceof Waiting)) throw error;
  } finally {
    if (asked === own) at("answer").setAttribute("aria-busy", "false");
  }
}

/** The request that the form holds; null, and said there, if it is none. */
function requestOf() {
  const user = at("user").value.trim(), text = at("features").value.trim();
  const request = { k: Number(at("k").value), exclude_seen: !at("seen").checked, explain: true };
  if (text) {
    const features = parsed(text);
    if (features === null) {
      problem(at("features-problem"), "This is no JSON object, such as {\"name\": \"value\"}.", at("features"));
      return null;
    }
    request.features = features;
  }
  if (user) request.user = user;
  else if (!text) {
    problem(at("user-problem"), "Give a user, or raw features.", at("user"));
    return null;
  }
  return request;
}

/** A known user's; empty for others. */
async function historyOf(user) {
  if (user === undefined) return [];
  try {
    return (await ask(`/v1/history?${new URLSearchParams({ user, count: HISTORY })}`)).items;
  } catch (error) {
    if (error instanceof Refused) return [];
    throw error;
  }
}

function showHistory(items, user) {
  const events = items.map((item) =>
    element("li", {}, element("button", { type: "button", class: "link", click: () => openItem(item) }, titleOf(item))));
  const found = items.length ? `${whole(items.length)} items, the newest first` : "Nothing is known.";
  at("history").hidden = user === undefined;
  at("history-items").replaceChildren(element("p", { class: "hint" }, found), element("ol", { class: "items" }, events));
}

/** Each beside what it is about. */
function showProblems(problems) {
  for (const each of problems) {
    const field = /^features\.([^[]+)/.exec(each.place)?.[1];
    const row = field && at("schema").querySelector(`[data-field="${CSS.escape(field)}"]`);
    if (row) {
      problem(row.querySelector(".problem"), told(each), at("features"));
      row.classList.add("wrong");
      at("raw").open = true;
    } else if (each.place.startsWith("features")) {
      at("raw").open = true;
      problem(at("features-problem"), `${each.place}: ${told(each)}`, at("features"));
    } else if (each.place === "user") problem(at("user-problem"), told(each), at("user"));
    else problem(at("other-problem"), `${each.place}: ${told(each)}`);
  }
  at("ask").querySelector("[aria-invalid]")?.focus();
}

function problem(where, text, input) {
  where.textContent = where.textContent ? `${where.textContent} ${text}` : text;
  input?.setAttribute("aria-invalid", "true");
}

function clearProblems() {
  for (const each of at("ask").querySelectorAll(".problem")) each.textContent = "";
  for (const each of at("ask").querySelectorAll("[aria-invalid]")) each.removeAttribute("aria-invalid");
  for (const each of at("ask").querySelectorAll(".wrong")) each.classList.remove("wrong");
}
