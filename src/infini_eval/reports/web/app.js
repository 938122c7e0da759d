// The application: from the address to a view; keys, dark mode, help.
"use strict";

const content = document.getElementById("content");
const VIEWS = {run: runView, compare: compareView, track: trackView};
let asked = 0;

/** Show what the address names; `quiet` keeps focus and scroll, while a word is typed. */
async function show(quiet = false) {
  const mine = (asked += 1);
  let {path, choice} = address();
  if (!path.length && alone) path = ["run", index.runs[0].id];
  const view = VIEWS[path[0]] ?? (path.length ? () => missing("This page has no such part.") : runsView);
  let made;
  try {
    made = await view({path, choice});
  } catch (error) {
    made = {title: "Cannot be shown", body: [h("h1", {}, "This cannot be shown"), h("p", {class: "warnings"}, error.message)]};
  }
  if (mine !== asked) return; // another view was asked for in the meantime
  const focused = quiet && document.activeElement?.id;
  const at = focused ? document.activeElement.selectionStart : null;
  content.replaceChildren();
  put(content, [made.body]);
  document.title = visible(made.title);
  crumbs(path);
  if (focused && document.getElementById(focused)) {
    const field = document.getElementById(focused);
    field.focus();
    if (at !== null) field.setSelectionRange(at, at);
  } else if (!quiet) arrive(path);
  content.dataset.ready = location.hash || "#/";
}

/** After a step: the top of the view in sight, said to screen readers. */
let before = "";
function arrive(path) {
  const place = path.slice(0, 3).join("/");
  if (place !== before) scrollTo(0, 0);
  if (before) content.focus({preventScroll: true});
  before = place;
  document.getElementById("said").textContent = document.title;
}

function crumbs(path) {
  const row = path[0] === "run" && runs.get(path[1]);
  const parts = document.getElementById("crumbs");
  parts.replaceChildren();
  if (!alone) put(parts, [h("a", {href: "#/"}, `${index.runs.length} runs`), index.track && h("a", {href: "#/track"}, "training")]);
  if (row) put(parts, [h("span", {}, row.name)]);
}

// --- dark and light -----------------------------------------------------------------------------------------------------

const THEMES = ["system", "dark", "light"];

function kept(name, value) {
  try {
    if (value === undefined) return localStorage.getItem(name);
    localStorage.setItem(name, value);
  } catch { /* a page from disk may have no storage */ }
  return value ?? null;
}

function setTheme(name) {
  document.documentElement.dataset.theme = name;
  kept("theme", name);
  const button = document.getElementById("theme");
  if (button) button.textContent = {system: "◐ system", dark: "● dark", light: "○ light"}[name];
}

const nextTheme = () => setTheme(THEMES[(THEMES.indexOf(document.documentElement.dataset.theme) + 1) % THEMES.length]);

// --- keys ---------------------------------------------------------------------------------------------------------------

const KEYS = [
  ["/", "search", () => document.getElementById("search")?.focus()],
  ["j", "next sample", () => document.getElementById("next")?.click()],
  ["k", "previous sample", () => document.getElementById("previous")?.click()],
  ["u", "up: from a sample to its list, from a run to the runs", up],
  ["d", "dark, light or as the system says", nextTheme],
  ["?", "this help", help],
];

function up() {
  const {path} = address();
  if (document.getElementById("up")) document.getElementById("up").click();
  else location.hash = path[0] === "run" && path.length > 2 ? link(path.slice(0, 2)) : "#/";
}

function help() {
  const dialog = document.getElementById("help");
  dialog.replaceChildren();
  put(dialog, [
    h("h2", {}, "Keys"),
    h("dl", {}, KEYS.map(([key, words]) => [h("dt", {}, h("kbd", {}, key)), h("dd", {}, words)]), h("dt", {}, h("kbd", {}, "Tab"), ", ", h("kbd", {}, "Enter")), h("dd", {}, "from link to link, and open; every cell of the heat map is a link")),
    h("p", {class: "note"}, "What is chosen stands in the address: copy it to share this very view. Everything is read from files beside this page; nothing is sent anywhere."),
    h("form", {method: "dialog"}, h("button", {}, "close")),
  ]);
  dialog.showModal();
}

addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || document.getElementById("help").open) return;
  if (/^(input|select|textarea)$/i.test(event.target.tagName)) {
    if (event.key === "Escape") event.target.blur();
    return;
  }
  const found = KEYS.find(([key]) => key === event.key);
  if (!found) return;
  event.preventDefault();
  found[2]();
});

put(document.getElementById("tools"), [h("button", {id: "theme", onclick: nextTheme, title: "dark mode (d)"}), h("button", {onclick: help, title: "keys (?)", "aria-label": "keys"}, "?")]);
setTheme(THEMES.includes(kept("theme")) ? kept("theme") : "system");
if (!location.hash && index.open) history.replaceState(null, "", index.open);
addEventListener("hashchange", () => show());
addEventListener("chosen", () => show(true));
addEventListener("beforeprint", () => content.querySelectorAll("details").forEach((one) => { one.open = true; }));
show();
