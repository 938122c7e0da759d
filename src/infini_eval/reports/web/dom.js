// Elements, numbers and words. Foreign text enters the page here, and only as text.
"use strict";

/** An element: h("a", {href: "#/", class: "x", onclick: f, style: {"--share": 5}}, "text", other element, null). */
function h(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "style") for (const [key, set] of Object.entries(value)) element.style.setProperty(key, set);
    else element.setAttribute(name, value === true ? "" : String(value));
  }
  put(element, children);
  return element;
}

/** Append elements and texts; arrays are taken apart, null and false left out. */
function put(parent, children) {
  for (const child of children.flat(Infinity)) {
    if (child === null || child === undefined || child === false) continue;
    parent.append(child instanceof Node ? child : document.createTextNode(visible(child)));
  }
}

/** Any value as text in which control and direction characters are written out: they could hide or turn around what follows. */
function visible(value) {
  return String(value).replace(/[\p{Cc}\p{Cf}\p{Co}\p{Cn}\p{Cs}\p{Zl}\p{Zp}]/gu, (c) => {
    if (c === "\n" || c === "\t") return c;
    const code = c.codePointAt(0);
    return code < 256 ? `\\x${code.toString(16).padStart(2, "0")}` : `\\u${code.toString(16).padStart(4, "0")}`;
  });
}

const NARROW = "\u00a0"; // "100 %" never wraps
const known = (value) => value !== null && value !== undefined;
const percent = (value, digits = 1) => (known(value) ? `${value.toFixed(digits)}${NARROW}%` : "");
const points = (value) => `${value >= 0 ? "+" : "−"}${Math.abs(value).toFixed(1)}`;
const ends = (low, high) => (known(low) && known(high) ? `${low.toFixed(1)} to ${high.toFixed(1)}` : "");
const count = (value) => (known(value) ? value.toLocaleString("en") : "");
const plain = (value) => (known(value) ? String(+value.toFixed(4)) : "");
const fixed = (value, digits) => (known(value) ? value.toFixed(digits).replace(/^-(0\.?0*)$/, "$1") : ""); // no "-0.0"
const unbroken = (words) => words.replace(/(\d) %/g, `$1${NARROW}%`);
const pValue = (p) => (known(p) ? (p < 0.0001 ? "< 0.0001" : p.toFixed(4)) : "no test");

/** 1024 as "1k", 1,048,576 as "1m", others as they are. */
function tokens(value) {
  if (!known(value)) return "unlabelled";
  for (const [size, suffix] of [[1024 ** 2, "m"], [1024, "k"]]) {
    if (value >= size && value % size === 0) return `${value / size}${suffix}`;
  }
  return String(value);
}

/** "2025-08-14 14:30" of an ISO date. */
const day = (iso) => (iso ? iso.slice(0, 16).replace("T", " ") : "");

/** A table that scrolls in its own box. columns: [{title, cell(row), number, class}] of rows; `caption` is for screen readers.
    more.class "stack": on a phone each row becomes a card of labelled lines. */
function table(caption, columns, rows, more = {}) {
  const head = columns.map((column) => h("th", {scope: "col", class: column.number ? "number" : null, ...column.head}, column.title));
  const body = rows.map((row) =>
    h("tr", {}, columns.map((column) => h("td", {class: kindOf(column), "data-label": column.label ?? (typeof column.title === "string" ? column.title : null)}, column.cell(row)))));
  return h("div", {class: "wide", tabindex: "0", role: "region", "aria-label": caption},
    h("table", {class: more.class}, h("caption", {class: "unseen"}, caption), h("thead", {}, h("tr", {}, head)), h("tbody", {}, body)));
}

const kindOf = (column) => [column.number ? "number" : "", column.class ?? ""].join(" ").trim() || null;

/** A horizontal bar of 0 to 100 with its interval as a line, in the width of its column. */
function bar(value, low, high) {
  if (!known(value)) return h("span", {class: "bar empty"});
  const interval = known(low) && known(high) && h("i", {style: {"--from": low, "--to": high}});
  return h("span", {class: "bar", "aria-hidden": "true"}, h("b", {style: {"--share": value}}), interval);
}

/** A text in which every occurrence of `word` is marked; `around` [start, end] is underlined as the needle. */
function marked(text, word, needle = null) {
  const parts = [];
  const cut = needle ? [[0, needle[0], false], [needle[0], needle[1], true], [needle[1], text.length, false]] : [[0, text.length, false]];
  for (const [from, to, inside] of cut) {
    const pieces = word ? text.slice(from, to).split(word) : [text.slice(from, to)];
    const shown = pieces.flatMap((piece, at) => (at ? [h("mark", {}, word), piece] : [piece]));
    parts.push(inside ? h("span", {class: "needle"}, shown) : shown);
  }
  return parts;
}

/** A section with its heading; nothing where there is nothing in it. */
function section(title, ...children) {
  const inside = children.flat(Infinity).filter(Boolean);
  return inside.length ? h("section", {}, title && h("h2", {}, unbroken(title)), inside) : null;
}

const shortened = (words) => (String(words).length > 80 ? `${String(words).slice(0, 80)}…` : words);

/** A choice among values: select(label, [[value, words], …], current, onchange). */
function select(label, options, current, chosen) {
  const list = options.map(([value, words]) => h("option", {value, selected: value === current}, shortened(words)));
  return h("label", {}, h("span", {}, label), h("select", {onchange: (event) => chosen(event.target.value)}, list));
}
