// Elements, and how numbers are written.

/** The element of an id that the page's HTML has. */
export const at = (id) => document.getElementById(id);

/** An element: `element("a", { href: "/" }, "text", child)`. Attributes that are null or false are left out. */
export const element = (name, attributes, ...children) => build(document.createElement(name), attributes, children);

/** Likewise of SVG. */
export const drawn = (name, attributes, ...children) =>
  build(document.createElementNS("http://www.w3.org/2000/svg", name), attributes, children);

function build(made, attributes, children) {
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (value === null || value === undefined || value === false) continue;
    if (typeof value === "function") made.addEventListener(name, value);
    else made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children.flat().filter((each) => each !== null && each !== undefined));
  return made;
}

/** A table; `columns` are `{ name, number }`, `rows` arrays of children, or of arrays of them. */
export const table = (caption, columns, rows, hidden = false) =>
  element("div", { class: "scroll", role: "region", "aria-label": caption, tabindex: 0 },
    element("table", {},
      element("caption", { class: hidden && "hidden" }, caption),
      element("thead", {}, element("tr", {}, columns.map((each) =>
        element("th", { scope: "col", class: each.number && "number" }, each.name)))),
      element("tbody", {}, rows.map((row) => element("tr", {}, row.map((cell, n) => n === 0
        ? element("th", { scope: "row", class: columns[n].number && "number" }, cell)
        : element("td", { class: columns[n].number && "number" }, cell)))))));

/** A part of a whole as a bar; what it means stands beside it as text. */
export function bar(share, kind = "") {
  const reach = element("span", { class: "reach" });
  reach.style.width = `${Math.max(0, Math.min(1, share)) * 100}%`; // through the CSSOM: the page allows no inline styles
  return element("span", { class: `bar ${kind}`, "aria-hidden": "true" }, reach);
}

export const whole = (value) => value.toLocaleString("en");
export const score = (value) =>
  Math.abs(value) >= 1000 || (value !== 0 && Math.abs(value) < 0.001) ? value.toExponential(2) : value.toFixed(3);
export const milliseconds = (value) => `${value < 10 ? value.toFixed(1) : Math.round(value)} ms`;
export const percent = (value) => `${(100 * value).toFixed(value < 0.0995 ? 1 : 0)}%`;

/** What an item is called. */
export const titleOf = (item) => item.title ?? item.item;
