// The server: asked, watched while it does not answer, and given an API key if it wants one.

import { at, element } from "/page/dom.js";

const PAUSE = 1500; // milliseconds between two looks whether the server is back
const KEY = "api-key";

/** The server refused a request; `problems` are `{ place, found, expected, cure }`. */
export class Refused extends Error {
  constructor(status, problems) {
    super(problems.map(told).join("; "));
    Object.assign(this, { status, problems });
  }
}

/** The server did not answer, or wants a key: the page says so by itself, and goes on when it can. */
export class Waiting extends Error {}

/** A problem in a line. */
export const told = ({ found, expected, cure }) =>
  [found, expected && `expected ${expected}`, cure].filter(Boolean).join("; ");

const callbacks = [];
/** `again` is called when the server is there again after it was not. */
export const onReturn = (again) => callbacks.push(again);

/** The JSON of an answer: of a GET, or of a POST if there is a body. */
export const ask = async (path, body) => (await answered(path, body)).json();

/** The bytes of an answer; null if it is not ready yet. */
export async function bytes(path) {
  const answer = await answered(path);
  return answer.status === 202 ? null : answer.arrayBuffer();
}

async function answered(path, body) {
  let answer;
  try {
    answer = await fetch(path, options(body));
  } catch {
    waitFor("The server does not answer. This page goes on when it is back.");
    throw new Waiting();
  }
  if (answer.ok) return answer;
  const problems = await problemsOf(answer);
  if (answer.status === 401) askForKey();
  else if (answer.status === 503) waitFor(`The server is there, but ${problems[0].found}. This page goes on when it can answer.`);
  else throw new Refused(answer.status, problems);
  throw new Waiting();
}

function options(body) {
  const key = sessionStorage.getItem(KEY);
  const headers = key ? { authorization: `Bearer ${key}` } : {};
  if (body === undefined) return { headers };
  return { method: "POST", headers: { ...headers, "content-type": "application/json" }, body: JSON.stringify(body) };
}

async function problemsOf(answer) {
  try {
    return (await answer.json()).error;
  } catch {
    return [{ place: "server", found: `answered ${answer.status} ${answer.statusText}` }];
  }
}

let waiting = false;

function waitFor(text) {
  at("notice").replaceChildren(element("p", { class: "gone" }, text));
  if (waiting) return;
  waiting = true;
  const look = async () => {
    const answer = await fetch("/v1/info", options()).catch(() => null);
    if (answer === null || answer.status === 503) return setTimeout(look, PAUSE);
    waiting = false;
    goOn("The server is back.");
  };
  setTimeout(look, PAUSE);
}

function goOn(text) {
  const said = element("p", { class: "back" }, text);
  at("notice").replaceChildren(said);
  setTimeout(() => said.remove(), 4000);
  for (const again of callbacks) again();
}

function askForKey() {
  const given = element("input", { id: "key", type: "password", autocomplete: "off", required: true });
  const form = element("form", { class: "gone" },
    element("label", { for: "key" }, "This server wants an API key "), given,
    element("button", { type: "submit" }, "Use it"));
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    sessionStorage.setItem(KEY, given.value.trim());
    goOn("The key is used until this window is closed.");
  });
  at("notice").replaceChildren(form);
  given.focus();
}
