// What is shown comes from JSON files by name: those in the page, else those beside it. What is chosen stands in the address.
"use strict";

const embedded = JSON.parse(document.getElementById("files").textContent);
const loaded = new Map();

/** The content of a file, as a promise; an error names the file. */
function load(path) {
  if (path in embedded) return Promise.resolve(embedded[path]);
  if (!loaded.has(path)) {
    const asked = read(path);
    asked.catch(() => loaded.delete(path));
    loaded.set(path, asked);
  }
  return loaded.get(path);
}

async function read(path) {
  if (location.protocol === "file:") {
    throw new Error(`${path} lies beside this page, which a browser reads only from a web server: python -m http.server in this folder`);
  }
  const answer = await fetch(path.split("/").map(encodeURIComponent).join("/"));
  if (!answer.ok) throw new Error(`${path}: the server says ${answer.status} ${answer.statusText}`);
  return answer.json();
}

const index = embedded["index.json"];
const runs = new Map(index.runs.map((row) => [row.id, row]));
const alone = index.runs.length === 1;

/** The words of one sample by its place in samples.json. */
async function sampleTexts(id, samples, place) {
  const chunk = await load(`runs/${id}/texts-${Math.floor(place / samples.chunk)}.json`);
  return chunk[place % samples.chunk];
}

/** The address as {path: ["run", "ID"], choice: {depth: "50"}}. */
function address() {
  const [path, query] = location.hash.replace(/^#\/?/, "").split("?");
  return {path: path.split("/").filter(Boolean).map(decodeURIComponent), choice: Object.fromEntries(new URLSearchParams(query))};
}

/** An address: link(["run", id, "samples"], {depth: 50}); empty choices are left out. */
function link(path, choice = {}) {
  const query = new URLSearchParams(Object.entries(choice).filter(([, value]) => known(value) && value !== ""));
  const text = query.toString();
  return `#/${path.map(encodeURIComponent).join("/")}${text ? `?${text}` : ""}`;
}

/** Change some choices of this address; `quiet` leaves no step for the back button (a word that is being typed). */
function choose(changes, quiet = false) {
  const {path, choice} = address();
  const next = link(path, {...choice, page: "", ...changes});
  if (quiet) {
    history.replaceState(null, "", next);
    dispatchEvent(new CustomEvent("chosen"));
  } else location.hash = next;
}

/** p-values adjusted for their number by Holm's method; null stays null. */
function holm(values) {
  const order = values.map((p, at) => [p, at]).filter(([p]) => known(p)).sort((a, b) => a[0] - b[0]);
  const adjusted = values.map(() => null);
  let largest = 0;
  order.forEach(([p, at], rank) => {
    largest = Math.max(largest, Math.min(1, p * (order.length - rank)));
    adjusted[at] = largest;
  });
  return adjusted;
}
