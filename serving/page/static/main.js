// The page: which view is shown, and in which light.

import { ask, onReturn, Refused, told, Waiting } from "/page/api.js";
import { at, element } from "/page/dom.js";
import { itemsOf } from "/page/item.js";
import { recommendView } from "/page/recommend.js";
import { mapView } from "/page/map.js";
import { bundleView } from "/page/bundle.js";

const views = { recommend: recommendView, map: mapView, bundle: bundleView };
let info = null;

async function show() {
  if (location.hash && !location.hash.startsWith("#/")) return; // a place on the page
  const [name, query] = location.hash.replace(/^#\/?/, "").split("?");
  const shown = views[name] ? name : "recommend";
  for (const each of Object.keys(views)) at(each).hidden = each !== shown;
  for (const link of document.querySelectorAll("nav a")) {
    if (link.hash === `#/${shown}`) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  try {
    info ??= named(await ask("/v1/info"));
    await views[shown](info, new URLSearchParams(query));
  } catch (error) {
    if (error instanceof Waiting) return;
    if (!(error instanceof Refused)) throw error;
    at("notice").replaceChildren(element("p", { class: "gone" }, error.problems.map(told).join("; ")));
  }
}

function named(found) {
  at("bundle-name").textContent = found.bundle.name;
  at("bundle-version").textContent = `version ${found.bundle.version}`;
  itemsOf(found);
  document.title = `${found.bundle.name} ${found.bundle.version}: recsys`;
  return found;
}

const THEMES = { system: "dark", dark: "light", light: "system" };

function theme() {
  const root = document.documentElement, chosen = root.dataset.theme ?? "system";
  at("theme").textContent = { system: "◐ System", dark: "● Dark", light: "○ Light" }[chosen];
  at("theme").setAttribute("aria-label", `Theme: ${chosen}. Change to ${THEMES[chosen]}`);
}

at("theme").addEventListener("click", () => {
  const root = document.documentElement, next = THEMES[root.dataset.theme ?? "system"];
  if (next === "system") {
    delete root.dataset.theme;
    localStorage.removeItem("theme");
  } else {
    root.dataset.theme = next;
    localStorage.setItem("theme", next);
  }
  theme();
  dispatchEvent(new Event("themechange"));
});
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => dispatchEvent(new Event("themechange")));

theme();
onReturn(() => {
  info = null; // another bundle may have come
  show();
});
addEventListener("hashchange", show);
show();
