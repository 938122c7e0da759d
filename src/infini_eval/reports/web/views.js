// The views: the list of runs, a run with its samples and diagnosis, a comparison, a training run. Each gives {title, body}.
"use strict";

const PAGE = 100; // samples on one page of the list

// --- the list of runs ---------------------------------------------------------------------------------------------------

const LIST = [
  {key: "name", title: "run", cell: (row) => h("a", {href: link(["run", row.id])}, row.name), class: "name"},
  {key: "accuracy", title: "accuracy", cell: (row) => measuredCell(row), class: "wide-cell"},
  {key: "interval", title: `95${NARROW}% interval`, cell: (row) => ends(row.ci_low, row.ci_high), value: (row) => row.ci_low ?? -1, class: "quiet once"},
  {key: "samples", title: "n", number: true, cell: (row) => [count(row.samples), row.failed ? h("div", {class: "quiet once"}, `+ ${count(row.failed)} failed`) : ""]},
  {key: "model", title: "model", cell: (row) => row.model, class: "words"},
  {key: "memory", title: "memory", cell: (row) => row.memory ?? ""},
  {key: "step", title: "step", class: "minor", number: true, cell: (row) => count(row.step)},
  {key: "task", title: "task", class: "minor", cell: (row) => row.task},
  {key: "lengths", title: "lengths", cell: (row) => h("span", {class: "once"}, lengthWords(row.lengths)), value: (row) => Math.max(0, ...row.lengths)},
  {key: "verdict", title: "verdict", cell: (row) => row.problem ?? row.verdict, class: "quiet words"},
  {key: "date", title: "date", class: "minor", cell: (row) => h("span", {class: "once", title: row.date ?? ""}, day(row.date).slice(0, 10))},
];

/** "1k, 4k", of more than two lengths "1k to 32k (6)". */
const lengthWords = (lengths) => (lengths.length < 3 ? lengths.map(tokens).join(", ") : `${tokens(lengths[0])} to ${tokens(lengths.at(-1))} (${lengths.length})`);

function runsView({choice}) {
  const words = (choice.q ?? "").toLowerCase().split(/\s+/).filter(Boolean);
  const text = (row) => [row.name, row.model, row.task, row.memory, row.verdict, row.lengths.map(tokens).join(" ")].join(" ").toLowerCase();
  const rows = index.runs.filter((row) =>
    words.every((word) => text(row).includes(word)) && (!choice.task || row.task === choice.task) && (!choice.model || row.model === choice.model));
  const [key, direction] = (choice.sort ?? "").split(":");
  const column = LIST.find((one) => one.key === key);
  if (column) rows.sort((a, b) => order(sorted(column, a), sorted(column, b)) * (direction === "down" ? -1 : 1));
  const body = [
    h("h1", {}, "Runs"),
    h("div", {class: "filters"},
      h("label", {}, h("span", {}, "search"), h("input", {id: "search", type: "search", value: choice.q ?? "", placeholder: "name, model, task, length …", oninput: (event) => choose({q: event.target.value}, true)})),
      ...["task", "model"].map((name) => choices(name, index.runs.map((row) => row[name]), choice[name])),
      h("span", {class: "found"}, `${rows.length} of ${index.runs.length} runs`)),
    runsTable(rows, choice, key, direction),
  ];
  return {title: "Runs", body};
}

function runsTable(rows, choice, key, direction) {
  const marked = new Set((choice.runs ?? "").split(",").filter(Boolean));
  const mark = (id, on) => {
    if (on) marked.add(id);
    else marked.delete(id);
    choose({runs: [...marked].join(",")}, true);
  };
  const box = {title: "", label: "compare", cell: (row) => row.kind !== "unread" && h("input", {type: "checkbox", "aria-label": `compare ${row.name}`, checked: marked.has(row.id), onchange: (event) => mark(row.id, event.target.checked)})};
  const heads = LIST.filter((one) => index.runs.some((row) => sorted(one, row) !== null && sorted(one, row) !== ""));
  const columns = heads.map((one) => ({...one, label: one.title, title: h("button", {class: "sort", onclick: () => choose({sort: `${one.key}:${one.key === key && direction === "up" ? "down" : "up"}`})}, one.title, one.key === key ? (direction === "up" ? " ↑" : " ↓") : ""),
    head: {"aria-sort": one.key === key ? (direction === "up" ? "ascending" : "descending") : "none"}}));
  const chosen = index.runs.filter((row) => marked.has(row.id));
  return h("section", {},
    chosen.length > 0 && h("p", {class: "act"},
      chosen.length > 1 ? h("a", {class: "button", href: link(["compare"], {runs: chosen.map((row) => row.id).join(",")})}, `Compare ${chosen.length} runs`) : "Choose a second run to compare",
      " ", h("button", {onclick: () => choose({runs: ""}, true)}, "none")),
    rows.length ? table("Runs", [box, ...columns], rows, {class: "stack list"}) : h("p", {}, "No run is like that."));
}

const sorted = (column, row) => (column.value ? column.value(row) : row[column.key]);
const order = (a, b) => (typeof a === "string" || typeof b === "string" ? String(a ?? "").localeCompare(String(b ?? ""), "en", {numeric: true}) : (a ?? -1) - (b ?? -1));

/** A choice among the distinct values of a column; nothing where there is only one. */
function choices(name, values, current, words = (value) => value) {
  const distinct = [...new Set(values)].filter((value) => known(value) && value !== "");
  return distinct.length > 1 && select(name, [["", "all"], ...distinct.map((value) => [String(value), words(value)])], current ?? "", (value) => choose({[name]: value}));
}

// --- one run ------------------------------------------------------------------------------------------------------------

async function runView({path, choice}) {
  const [, id, part = "overview", key] = path;
  const row = runs.get(id);
  if (!row) return missing(`There is no run ${id} here.`);
  if (row.problem) return missing(`${row.name} cannot be reported on: ${row.problem}`);
  const page = await load(`runs/${id}/run.json`);
  const parts = {overview: runOverview, samples: samplesView, sample: sampleView, diagnosis: diagnosisView, settings: settingsView};
  const shown = parts[part];
  if (!shown) return missing(`A run has no part ${part}.`);
  const body = await shown(page, row, choice, key);
  const tabs = [["overview", "Overview"], ["samples", row.kind === "questions" ? "Answers" : "Samples"], page.diagnosis && ["diagnosis", "Diagnosis"], ["settings", "Settings"]];
  const current = part === "sample" ? "samples" : part;
  return {
    title: `${page.story.title} (${row.name})`,
    body: [
      h("h1", {}, page.story.title),
      h("p", {class: "note"}, [row.name, ...page.story.facts, day(row.date)].filter(Boolean).join(" · ")),
      h("nav", {class: "tabs", "aria-label": "Parts of this run"}, tabs.filter(Boolean).map(([name, words]) =>
        h("a", {href: link(["run", id, ...(name === "overview" ? [] : [name])]), "aria-current": name === current ? "page" : null}, words))),
      body,
    ],
  };
}

const missing = (words) => ({title: "Not here", body: [h("h1", {}, "Not here"), h("p", {}, words), h("p", {}, h("a", {href: "#/"}, "To the runs"))]});

function runOverview(page, row) {
  const judged = row.kind === "questions";
  return [
    h("section", {class: "top"}, hero(page.story)),
    judged ? judgesView(page, row) : depthsView(page, row),
    page.story.why.map((part) => section(part.title, h("ul", {}, part.lines.map((line) => h("li", {}, line))))),
  ];
}

function hero(story) {
  return [
    h("div", {class: "hero"}, story.cards.map((card) => h("div", {class: card.tone}, h("strong", {}, card.big), h("small", {}, unbroken(card.small))))),
    story.warnings.length > 0 && h("ul", {class: "warnings"}, story.warnings.map((line) => h("li", {}, line))),
    story.small_print && h("p", {class: "note"}, story.small_print),
  ];
}

function depthsView(page, row) {
  const {summary} = page;
  const blocks = summary.by_context_length;
  const segments = blocks.some((block) => block.expected_segments > 1);
  const columns = [
    {title: "context", cell: (block) => h("a", {href: link(["run", row.id, "samples"], {length: block.context_length ?? "none"})}, tokens(block.context_length))},
    segments && {title: "segments", number: true, cell: (block) => plain(block.expected_segments)},
    {title: "average over depths", class: "wide-cell", cell: ({summary_stats: stats}) => h("div", {class: "measured"}, bar(stats.average_accuracy, stats.average_ci_low, stats.average_ci_high), h("span", {}, percent(stats.average_accuracy) || "no sample was answered"))},
    {title: `95${NARROW}% interval`, class: "quiet once", cell: ({summary_stats: stats}) => ends(stats.average_ci_low, stats.average_ci_high)},
    {title: "n", number: true, cell: (block) => count(block.total_samples)},
    blocks.some((block) => block.failed) && {title: "failed", cell: (block) => block.failed ? `${count(block.failed)}: ${percent(block.summary_stats.average_failed_as_wrong)} with them wrong` : ""},
    {title: "spread", number: true, cell: (block) => percent(block.summary_stats.std_dev)},
    {title: "verdict", class: "quiet", cell: (block) => block.headline.words},
  ].filter(Boolean);
  const plots = [byLength(summary), byCompressions(summary), page.gates && headMap("Gates: how much of each head's output is memory (0 local attention only, 1 memory only). Open gates alone do not show a useful memory.", page.gates, (gate) => gate, (gate) => gate.toFixed(2))].filter(Boolean);
  return [
    section("Accuracy by depth and length", heatMap(row.id, blocks), table("Accuracy by context length", columns, blocks, {class: "stack"})),
    section(`Accuracy by depth, %, with 95${NARROW}% intervals`, byDepth(blocks), blocks.map((block) => depthTable(page, row, block, blocks.length === 1))),
    section("Length, segments and memory", plots.length > 0 && h("div", {class: "plots"}, plots), placesTable(page)),
  ];
}

function depthTable(page, row, block, open) {
  const wrong = new Map(block.errors.by_depth.map((cell) => [cell.depth_percent, cell.kinds]));
  const said = (cell) => Object.entries(wrong.get(cell.depth_percent) ?? {}).sort((a, b) => b[1] - a[1]).slice(0, 3).map(([kind, n]) => `${n} ${page.labels.kinds[kind].split(" (")[0]}`).join(", ");
  const columns = [
    {title: "depth", cell: (cell) => h("a", {href: link(["run", row.id, "samples"], {length: block.context_length ?? "none", depth: cell.depth_percent})}, percent(cell.depth_percent, 0))},
    {title: "accuracy", class: "wide-cell", cell: (cell) => h("div", {class: "measured"}, bar(cell.accuracy, cell.ci_low, cell.ci_high), h("span", {}, percent(cell.accuracy) || "no answer"))},
    {title: `95${NARROW}% interval`, class: "quiet once", cell: (cell) => ends(cell.ci_low, cell.ci_high)},
    {title: "right / n", cell: (cell) => h("span", {class: "once"}, `${cell.correct} / ${cell.num_samples}${cell.failed ? `, ${cell.failed} failed` : ""}`)},
    {title: "wrong answers, most frequent kinds", class: "quiet", cell: said},
  ];
  return h("details", {open}, h("summary", {}, `By depth at ${tokens(block.context_length)} tokens, as a table`), table(`Accuracy by depth at ${tokens(block.context_length)} tokens`, columns, block.results_by_depth));
}

/** Accuracy by the place of needle and answer among the segments: a row a place, a column a length. */
function placesTable(page) {
  const blocks = page.summary.by_context_length;
  const names = [...new Set(page.places.flat().map(([name]) => name))];
  const of = (at, wanted) => page.places[at].find(([name]) => name === wanted)?.[1];
  const shown = blocks.length > 3 ? (share) => h("div", {}, percent(share.accuracy)) : measuredCell;
  const cell = (share) => share && [shown(share), h("div", {class: "quiet once"}, `${ends(share.ci_low, share.ci_high)}, n = ${count(share.num_samples)}`)];
  if (!names.length) return null;
  return [h("h3", {}, `Where needle and answer lie, with 95${NARROW}% intervals`), table("Where needle and answer lie", [
    {title: "place", class: "words", cell: (name) => name},
    ...blocks.map((block, at) => ({title: `${tokens(block.context_length)} tokens`, cell: (name) => cell(of(at, name))})),
  ], names, {class: "stack"})];
}

function judgesView(page, row) {
  const {judges} = page.summary;
  if (!judges.length) return null;
  const groups = [["by_category", "By category"], ["by_length", "By length in tokens"], ["per_repeat", "By repeat"]];
  const states = [...new Set(judges.flatMap((judge) => Object.keys(judge.counts)))].filter((state) => judges.some((judge) => judge.counts[state]));
  const unparsed = judges.flatMap((judge) => judge.unparsed.map((one) => ({judge: judge.name, ...one})));
  return [
    section("Judges", table("Verdicts of the judges", [
      {title: "judge", cell: (judge) => judge.name}, {title: "model", cell: (judge) => judge.model}, {title: "protocol", cell: (judge) => judge.protocol},
      {title: "accuracy", class: "wide-cell", cell: measuredCell}, {title: `95${NARROW}% interval`, class: "quiet once", cell: (judge) => ends(judge.ci_low, judge.ci_high)},
      ...states.map((state) => ({title: state, number: true, cell: (judge) => h("a", {href: link(["run", row.id, "samples"], {judge: judge.name, state})}, count(judge.counts[state]))})),
    ], judges, {class: "stack"})),
    groups.map(([key, title]) => judges.some((judge) => judge[key].length > 1) && section(title, groupTable(title, key, judges))),
    unparsed.length > 0 && section("Replies that are no verdict (not counted)", table("Replies that are no verdict", [
      {title: "judge", cell: (one) => one.judge}, {title: "answer", cell: (one) => `question ${one.question_id}, repeat ${one.repeat}`}, {title: "reply", cell: (one) => h("code", {}, one.raw)},
    ], unparsed)),
  ];
}

const measuredCell = (one) => h("div", {class: "measured"}, bar(one.accuracy, one.ci_low, one.ci_high), h("span", {}, percent(one.accuracy) || "–"));

/** One row a group, the judges beside each other: every bar starts at its column's left. */
function groupTable(title, key, judges) {
  const name = (one) => one.name ?? `repeat ${one.repeat}`;
  const names = [...new Set(judges.flatMap((judge) => judge[key].map(name)))];
  const of = (judge, wanted) => judge[key].find((one) => name(one) === wanted);
  return table(title, [
    {title: "", label: "", class: "once", cell: (wanted) => h("strong", {}, wanted)},
    ...judges.flatMap((judge) => [
      {title: judge.name, class: "wide-cell", cell: (wanted) => of(judge, wanted) && measuredCell(of(judge, wanted))},
      {title: "right / n", label: "", cell: (wanted) => { const one = of(judge, wanted); return one?.n ? h("span", {class: "once"}, `${plain(one.correct)} / ${one.n}`) : h("span", {class: "quiet"}, "none"); }},
    ]),
  ], names, {class: "stack"});
}

// --- samples ------------------------------------------------------------------------------------------------------------

const MARKS = {right: "✓", wrong: "✗", failed: "!", partly: "~"};
const stateOf = (correct) => (!known(correct) ? "failed" : correct >= 1 ? "right" : correct > 0 ? "partly" : "wrong");

/** The places of the samples that the choices leave, in the order of the list. */
function filtered(samples, choice, kinds) {
  const {columns} = samples;
  const words = (choice.q ?? "").toLowerCase();
  const places = [];
  for (let at = 0; at < columns.key.length; at += 1) {
    if (choice.length && String(columns.length[at] ?? "none") !== choice.length) continue;
    if (choice.depth && String(columns.depth[at]) !== choice.depth) continue;
    if (choice.kind && kinds[columns.kind[at]] !== choice.kind) continue;
    if (choice.state && !hasState(columns, at, choice)) continue;
    if (choice.category && columns.category[at] !== choice.category) continue;
    if (words && !`${columns.id[at]} ${columns.answer[at]} ${columns.said[at]}`.toLowerCase().includes(words)) continue;
    places.push(at);
  }
  return places;
}

function hasState(columns, at, choice) {
  if (!columns.states) return stateOf(columns.correct[at]) === choice.state;
  const own = columns.states[at];
  if (choice.state === "differ") return new Set(own).size > 1;
  const judges = columns.judges ?? [];
  return choice.judge && judges.includes(choice.judge) ? own[judges.indexOf(choice.judge)] === choice.state : own.includes(choice.state);
}

async function samplesOf(page, row) {
  const samples = await load(`runs/${row.id}/samples.json`);
  if (samples.columns.states) samples.columns.judges = page.summary.judges.map((judge) => judge.name);
  return samples;
}

async function samplesView(page, row, choice) {
  const samples = await samplesOf(page, row);
  const kinds = Object.keys(page.labels.kinds);
  const places = filtered(samples, choice, kinds);
  const pages = Math.max(1, Math.ceil(places.length / PAGE));
  const at = Math.min(pages, Math.max(1, Number(choice.page) || 1));
  const shown = places.slice((at - 1) * PAGE, at * PAGE);
  const listed = samples.columns.key.length;
  return h("section", {},
    sampleFilters(page, samples, choice, kinds, places.length),
    listed < samples.total && h("p", {class: "note"}, `An even selection of ${count(listed)} of ${count(samples.total)} samples, wrong ones first; all are in samples.parquet beside this page, and in infini-eval view.`),
    shown.length ? sampleTable(page, row, samples, shown, choice, kinds) : h("p", {}, "No sample is like that."),
    pages > 1 && h("p", {class: "pager"},
      h("a", {class: "button", href: at > 1 ? turned(at - 1) : null}, "← previous"), ` page ${at} of ${pages} `, h("a", {class: "button", href: at < pages ? turned(at + 1) : null}, "next →")));
}

function turned(page) {
  const {path, choice} = address();
  return link(path, {...choice, page});
}

function sampleFilters(page, samples, choice, kinds, found) {
  const {columns} = samples;
  const judged = Boolean(columns.states);
  const lengths = [...new Set(columns.length)].sort((a, b) => (a ?? 0) - (b ?? 0));
  const depths = judged ? [] : [...new Set(columns.depth)].sort((a, b) => a - b);
  const there = judged ? [] : kinds.filter((_, at) => columns.kind.includes(at));
  const states = judged ? [...new Set(columns.states.flat()), ...(columns.judges.length > 1 ? ["differ"] : [])] : ["wrong", "right", "partly", "failed"].filter((state) => columns.correct.some((value) => stateOf(value) === state));
  return h("div", {class: "filters"},
    !judged && choices("length", lengths.map((length) => length ?? "none"), choice.length, (length) => (length === "none" ? "unlabelled" : tokens(length))),
    choices("depth", depths, choice.depth, (depth) => percent(depth, 0)),
    choices("state", states, choice.state, (state) => (state === "differ" ? "judges differ" : state)),
    judged && choices("judge", columns.judges, choice.judge),
    judged && choices("category", columns.category, choice.category),
    choices("kind", there, choice.kind, (kind) => page.labels.kinds[kind].split(" (")[0]),
    h("label", {}, h("span", {}, "search"), h("input", {id: "search", type: "search", value: choice.q ?? "", placeholder: "id, expected, answered", oninput: (event) => choose({q: event.target.value}, true)})),
    h("span", {class: "found"}, `${count(found)} of ${count(columns.key.length)}`),
    Object.values(choice).some(Boolean) && h("button", {onclick: () => { location.hash = link(address().path); }}, "show all"));
}

function sampleTable(page, row, samples, places, choice, kinds) {
  const {columns} = samples;
  const open = (at, words) => h("a", {href: link(["run", row.id, "sample", columns.key[at]], {...choice, page: ""})}, words);
  const shared = [{title: "expected", cell: (at) => h("code", {}, columns.answer[at] ?? "")}, {title: "answered", cell: (at) => said(columns.said[at])}];
  if (columns.states) {
    return table("Answers", [
      {title: "question", cell: (at) => open(at, columns.id[at])}, {title: "repeat", number: true, cell: (at) => columns.repeat[at]},
      ...columns.judges.map((name, place) => ({title: name, cell: (at) => state(columns.states[at][place])})), ...shared,
      {title: "category", class: "quiet", cell: (at) => columns.category[at] ?? ""},
    ], places, {class: "stack"});
  }
  return table("Samples", [
    {title: "", label: "result", cell: (at) => state(stateOf(columns.correct[at]), false)},
    {title: "sample", cell: (at) => open(at, columns.id[at] ?? columns.key[at])},
    {title: "context", number: true, cell: (at) => tokens(columns.length[at])},
    {title: "depth", number: true, cell: (at) => known(columns.depth[at]) && percent(columns.depth[at], 0)},
    columns.compressions.some(known) && {title: "compressions", number: true, cell: (at) => count(columns.compressions[at])},
    ...shared,
    {title: "kind", class: "quiet", cell: (at) => (known(columns.kind[at]) ? page.labels.kinds[kinds[columns.kind[at]]].split(" (")[0] : "")},
  ].filter(Boolean), places, {class: "stack"});
}

const said = (text) => (text?.trim() ? h("code", {}, text) : h("span", {class: "quiet"}, "(nothing)"));
const state = (name, words = true) => h("span", {class: `state ${name.replaceAll(" ", "-")}`, title: name}, `${MARKS[name] ?? "·"}`, words ? ` ${name}` : h("span", {class: "unseen"}, name));

async function sampleView(page, row, choice, key) {
  const samples = await samplesOf(page, row);
  const place = samples.columns.key.indexOf(key);
  if (place < 0) return h("p", {}, `The sample ${key} is not among the ${count(samples.columns.key.length)} that are listed here.`);
  const places = filtered(samples, choice, Object.keys(page.labels.kinds));
  const at = places.indexOf(place);
  const step = (other, words, name) => h("a", {class: "button", id: name, href: known(places[other]) ? link(["run", row.id, "sample", samples.columns.key[places[other]]], choice) : null}, words);
  const sample = await sampleTexts(row.id, samples, place);
  return [
    h("p", {class: "pager"}, step(at - 1, "← previous", "previous"), at >= 0 && ` ${count(at + 1)} of ${count(places.length)} `, step(at + 1, "next →", "next"), " ",
      h("a", {class: "button", id: "up", href: link(["run", row.id, "samples"], choice)}, "↑ list")),
    samples.columns.states ? answerBody(sample, samples, place) : sampleBody(page, sample, samples, place),
  ];
}

function sampleBody(page, sample, samples, place) {
  const {columns} = samples;
  const kind = columns.kind[place];
  const answer = (sample.answer ?? "").trim();
  const where = `${tokens(columns.length[place])} tokens, ${plain(sample.depth_percent)}${NARROW}% deep` + (known(sample.real_depth) ? ` (measured ${percent(sample.real_depth)})` : "");
  const scores = Object.entries(sample.scores).map(([name, value]) => `${name} ${known(value) ? plain(value) : "none"}`).join(", ");
  return h("section", {class: "sample"},
    h("h2", {}, state(stateOf(columns.correct[place])), ` ${sample.id ?? sample.key}`),
    facts([
      ["where", where], ["asked for", h("code", {}, sample.answer ?? "")], ["answered", h("code", {class: "block"}, sample.generation_text?.trim() ? marked(visible(sample.generation_text), answer) : "(nothing)")],
      sample.extracted && ["read as", h("code", {}, sample.extracted)], sample.error && ["failed", h("code", {}, sample.error)],
      known(kind) && ["kind of error", Object.values(page.labels.kinds)[kind]], scores && ["scores", scores],
      ["took", `${plain(sample.seconds)} s, ${count(sample.prompt_tokens)} tokens read, ${count(sample.generation_tokens)} written (${sample.finish_reason ?? "end unknown"})`],
    ]),
    (page.segment_length || known(sample.needle_token_start)) && [h("h3", {}, "Where it stands"), segmentPicture(sample, page.segment_length) ?? h("p", {class: "note"}, "The record does not say where the needle stands.")],
    promptParts(sample, answer));
}

/** The text around the needle and the question: from the data set, else what the record kept. */
function promptParts(sample, answer) {
  const {around} = sample;
  if (around) {
    const needle = known(around.start) ? [around.start, around.end] : null;
    return [
      h("h3", {}, needle ? "The prompt around the needle" : "The prompt's beginning"), h("p", {class: "around"}, "… ", marked(around.text, answer, needle), " …"),
      h("h3", {}, "The question: the prompt's end"), h("p", {class: "around"}, "… ", around.question),
    ];
  }
  return [
    sample.excerpt && [h("h3", {}, "The prompt around the needle, as the record kept it"), h("p", {class: "around"}, marked(sample.excerpt, answer))],
    h("p", {class: "note"}, `No more of the prompt can be shown: ${sample.no_text}. Records hold no prompts.`),
  ];
}

function answerBody(sample, samples, place) {
  const {columns} = samples;
  return h("section", {class: "sample"},
    h("h2", {}, `Question ${sample.id}, repeat ${columns.repeat[place]}`),
    facts([
      columns.category[place] && ["category", columns.category[place]], sample.document_set && ["documents", sample.document_set],
      columns.length[place] && ["tokens", count(columns.length[place])], ["question", h("div", {class: "text"}, sample.question)],
      ["official", h("div", {class: "text"}, sample.answer)], ["answered", h("code", {class: "block"}, sample.generation_text?.trim() ? sample.generation_text : "(nothing)")],
      sample.error && ["failed", h("code", {}, sample.error)], sample.finish_reason && ["ended by", sample.finish_reason],
    ]),
    h("h3", {}, "Verdicts"),
    h("div", {class: "cards"}, sample.verdicts.map((one) => h("article", {}, h("h4", {}, one.judge, " ", state(one.state)), one.raw && h("code", {class: "block"}, one.raw)))));
}

const facts = (pairs) => h("dl", {}, pairs.filter(Boolean).map(([name, value]) => [h("dt", {}, name), h("dd", {}, value)]));

// --- diagnosis and settings ---------------------------------------------------------------------------------------------

const within = (value, digits = 2) => (!value || !known(value.mean) ? "–" : fixed(value.mean, digits) + (known(value.low) && known(value.high) ? ` [${fixed(value.low, digits)}, ${fixed(value.high, digits)}]` : ""));

function diagnosisView(page) {
  const found = page.diagnosis;
  if (!found) return h("p", {}, "This run has no diagnosis: --diagnose, or infini-eval diagnose, makes one.");
  const {verdict, control} = found;
  const top = h("section", {class: "top"}, h("div", {class: "hero"},
    h("div", {class: verdict.label === "works" ? "good" : verdict.label === "undecided" ? "" : "poor"}, h("strong", {}, verdict.label.replaceAll("_", " ")), h("small", {}, [verdict.reason, verdict.where].filter(Boolean).join(". "))),
    control && h("div", {}, h("strong", {}, `${control.right} of ${control.n}`), h("small", {}, "controls right: the same needle in the question's own segment, where no memory is needed")),
    found.samples > 0 && h("div", {}, h("strong", {}, `${found.correct} of ${found.samples}`), h("small", {}, `samples right, needle in an earlier segment (chosen: ${found.chosen ?? "all"}); ${found.left_out} left out`))),
  found.evidence?.length > 0 && h("ul", {}, found.evidence.map((line) => h("li", {}, line))));
  return found.samples ? [top, evidencePart(page, found), overTimePart(found), headsPart(found), memoryPart(found)] : top;
}

function evidencePart(page, found) {
  const groups = [["right samples, first token", found.evidence_right], ["wrong samples, first wrong token", found.evidence_wrong]].filter(([, group]) => group);
  const list = (labels, caption) => {
    const rows = Object.entries(labels).filter(([key]) => groups.some(([, group]) => group[key]?.n));
    return rows.length > 0 && table(caption, [{title: "", cell: ([, words]) => words.trim()}, ...groups.map(([name, group]) => ({title: name, cell: ([key]) => h("span", {class: "once"}, within(group[key]))}))], rows);
  };
  const rates = found.evidence_wrong && list(page.labels.rates, "How often the best head's read tells the answer from another");
  return [
    section("What memory adds for the right token, in logits above other answers' tokens", list(page.labels.evidence, "What memory adds for the right token")),
    rates && section("How often the best head's read tells the answer from another (chance 0.50)", rates),
    section("By token of the answer, those before it given", table("By token of the answer", [
      {title: "token", number: true, cell: (one) => one.token}, {title: "offset in its segment", number: true, cell: (one) => one.offset_in_segment ?? ""},
      {title: "first wrong", cell: (one) => `${one.first_wrong} / ${one.n}`}, {title: "log p", cell: (one) => within(one.log_p)},
      {title: "the memory holds", cell: (one) => within(one.held)}, {title: "the question reads", cell: (one) => within(one.read)}, {title: "lost without memory", cell: (one) => within(one.lost)},
    ], found.by_token)),
  ];
}

function overTimePart(found) {
  const rows = (key) => found.over_time.filter((one) => known(one[key].mean)).map((one) => ({
    x: 1 + one.segments_after, y: one[key].mean, low: one[key].low ?? one[key].mean, high: one[key].high ?? one[key].mean,
    words: `${one.segments_after} segments later: ${within(one[key])}`,
  }));
  const labels = new Map(found.over_time.map((one) => [1 + one.segments_after, `${one.segments_after}`]));
  return section("What the memory still holds, by segments folded in since the needle's",
    legend(["the question's own query", "the best query"], 0),
    chart("Logits for the right token, without the gates, 95 % intervals", () => ({
      height: 240, marginLeft: 40, marginRight: 20, y: {grid: true, label: null},
      x: {type: "log", base: 2, ticks: [...labels.keys()], tickFormat: (x) => labels.get(x) ?? "", label: "segments since the needle's"},
      marks: [Plot.ruleY([0], {stroke: "var(--soft)"}), ...intervals(rows("held"), SERIES[0]), ...intervals(rows("reachable"), SERIES[1])],
    })));
}

function headsPart(found) {
  const layers = 1 + Math.max(...found.heads.map((one) => one.layer));
  const heads = 1 + Math.max(...found.heads.map((one) => one.head));
  const grid = Array.from({length: layers}, () => Array(heads).fill(0));
  for (const one of found.heads) grid[one.layer][one.head] = one.answer_loses;
  const most = Math.max(1e-9, ...grid.flat());
  const carriers = found.carriers.map((one) => ({...one, name: one.heads.map(([layer, head]) => `${layer}.${head}`).join(", ") || "none"}));
  return [
    section("Heads: what the answer's log-probability loses without their reading", headMap("Log-probability lost, layers down, heads to the right", grid, (value) => value / most, (value) => fixed(value, 1)),
      h("details", {}, h("summary", {}, "As a table"), table("Heads", [
        {title: "layer", number: true, cell: (one) => one.layer}, {title: "head", number: true, cell: (one) => one.head}, {title: "gate", number: true, cell: (one) => one.gate.toFixed(3)},
        {title: "share of mix", number: true, cell: (one) => one.share_of_mix?.toFixed(3) ?? ""}, {title: "probe logits", number: true, cell: (one) => one.probe_logits?.toFixed(2) ?? ""},
        {title: "answer loses", cell: (one) => within({mean: one.answer_loses, low: one.answer_loses_low, high: one.answer_loses_high})},
      ], found.heads))),
    section("Answers given when only these heads (layer.head) read their memory, and when all but these do", table("Carriers", [
      {title: "reading", cell: (one) => (one.reading === "only" ? "only these" : "all but these")}, {title: "heads", cell: (one) => one.name}, {title: "right", cell: (one) => `${one.correct} / ${one.n}`},
    ], carriers)),
  ];
}

function memoryPart(found) {
  const mean = (values) => (values?.length ? values.reduce((sum, value) => sum + (value ?? 0), 0) / values.length : null);
  const health = section("Memory along the context, by layer (means over heads)", table("Memory along the context", [
    {title: "layer", number: true, cell: (one) => one.layer}, {title: "segment", number: true, cell: (one) => plain(one.segment)}, {title: "|M|", number: true, cell: (one) => mean(one.memory_norm)?.toFixed(1)},
    {title: "|z|", number: true, cell: (one) => mean(one.z_norm)?.toFixed(1)}, {title: "smallest zq", number: true, cell: (one) => one.smallest_denominator?.toPrecision(3)}, {title: "share of mix", number: true, cell: (one) => mean(one.share_of_mix)?.toFixed(3)},
  ], found.health));
  const rounded = found.bfloat16_memory;
  return [health, rounded?.relative_error?.length > 0 && section(`Memory in bfloat16 instead of float32 (sample ${rounded.sample}, ${count(rounded.tokens)} tokens)`, table("Relative error in bfloat16", [
    {title: "layer", number: true, cell: (one) => one.layer}, {title: "segment", number: true, cell: (one) => one.segment}, {title: "error of M", number: true, cell: (one) => known(one.memory) ? percent(100 * one.memory, 2) : ""}, {title: "error of z", number: true, cell: (one) => known(one.z) ? percent(100 * one.z, 2) : ""},
  ], rounded.relative_error))];
}

function settingsView(page) {
  const folder = page.summary.run;
  return h("section", {},
    folder && h("p", {class: "note"}, `Run folder ${folder.folder}; read from ${folder.files.slice(0, 10).join(", ")}.`),
    page.story.settings.length
      ? table("Settings", [{title: "setting", class: "setting", cell: ([name]) => name.split(/(?<=\.)/).map((part) => [part, h("wbr")])}, {title: "value", cell: ([, value]) => h("code", {}, value.length > 400 ? `${value.slice(0, 400)} …` : value)}], page.story.settings)
      : h("p", {}, "No manifest: nothing is known about the settings."));
}

// --- comparison and training --------------------------------------------------------------------------------------------

async function compareView({choice}) {
  const chosen = (choice.runs ?? "").split(",").map((id) => runs.get(id)).filter(Boolean);
  if (chosen.length < 2) return missing("A comparison needs two runs: choose them in the list.");
  const [first, ...others] = chosen;
  const ready = (other) => !index.pairs || index.pairs.some(([a, b]) => a === first.id && b === other.id);
  const absent = others.find((other) => !ready(other));
  if (absent) return missing(`This folder holds no comparison of ${absent.name} with ${first.name}: infini-eval view without --bundle compares any runs.`);
  const letter = (at) => String.fromCharCode(65 + at);
  const found = await Promise.all(others.map((other) => load(`compare/${first.id}/${other.id}.json`)));
  const swap = link(["compare"], {runs: [...chosen.slice(1), first].map((row) => row.id).join(",")});
  const heads = chosen.map((row, at) => h("li", {}, h("strong", {}, `${letter(at)} `), h("a", {href: link(["run", row.id])}, row.name), h("span", {class: "quiet"}, ` ${row.model}${row.memory ? `, memory ${row.memory}` : ""}: ${percent(row.accuracy)}`)));
  const problems = found.map((one, at) => one.problem && h("li", {}, `${letter(at + 1)}: ${one.problem}`)).filter(Boolean);
  const depths = found.map((one, at) => ({...one, letter: letter(at + 1), row: others[at]})).filter((one) => one.comparison);
  const judged = found.map((one, at) => ({...one, letter: letter(at + 1), row: others[at]})).filter((one) => one.questions);
  return {
    title: `Comparison: ${chosen.map((row) => row.name).join(", ")}`,
    body: [
      h("h1", {}, "Comparison on the same samples"),
      h("section", {}, h("ul", {class: "plain"}, heads), h("p", {}, h("a", {class: "button", href: swap}, chosen.length > 2 ? `make ${letter(1)} the first` : "exchange A and B")), problems.length > 0 && h("ul", {class: "warnings"}, problems)),
      depths.length > 0 && comparedDepths(first, depths, await load(`runs/${first.id}/samples.json`)),
      judged.length > 0 && comparedQuestions(judged),
    ],
  };
}

function comparedDepths(first, found, samples) {
  const overall = found.map((one) => one.comparison.overall);
  const adjusted = holm(overall.map((one) => one.p));
  const rows = found.map((one, at) => ({...one, ...overall[at], adjusted: adjusted[at]}));
  const several = rows.length > 1;
  const series = (key, x) => found.map((one) => ({name: `${one.letter} − A`, rows: one.comparison[key].filter((row) => known(row[x])).map((row) => ({
    x: row[x], y: row.difference, low: row.low, high: row.high, words: `${one.letter} − A: ${points(row.difference)} points (${points(row.low)} to ${points(row.high)}), n = ${row.n}`}))}));
  const lengths = series("by_context_length", "context_length");
  return [
    section("Paired differences, points", table("Paired differences", differenceColumns([
      {title: "", label: "", class: "once", cell: (row) => h("strong", {}, `${row.letter} − A`)},
    ], several), rows, {class: "stack"}),
    h("ul", {}, rows.map((row) => h("li", {}, conclusion(row, several), row.comparison.notes.map((note) => `; ${note}`))))),
    section("Points above or below A, with 95 % intervals", h("div", {class: "plots"},
      differences("By depth of the needle", "depth, %", series("by_depth", "depth_percent")),
      lengths[0].rows.length > 1 && differences("By context length", "context, tokens", lengths, true)),
    found.map((one) => h("details", {}, h("summary", {}, `${one.letter} − A by length, as a table`), table(`${one.letter} − A by length`, differenceColumns([{title: "context", cell: (row) => tokens(row.context_length)}], false), one.comparison.by_context_length, {class: "stack"})))),
    found.map((one) => section(`Samples that only one of A and ${one.letter} answers rightly`, h("div", {class: "cards"},
      onlyOne(`only A right (${overall[found.indexOf(one)].only_a})`, one.only_a, first, one.row, one.letter, samples),
      onlyOne(`only ${one.letter} right (${overall[found.indexOf(one)].only_b})`, one.only_b, first, one.row, one.letter, samples)))),
  ];
}

function differenceColumns(head, several) {
  return [
    ...head,
    {title: "A", number: true, cell: (row) => percent(row.a)}, {title: "other", number: true, cell: (row) => percent(row.b)},
    {title: "difference", number: true, cell: (row) => h("strong", {class: row.low > 0 ? "better" : row.high < 0 ? "worse" : null}, points(row.difference))},
    {title: `95${NARROW}% interval`, cell: (row) => h("span", {class: "once"}, `${points(row.low)} to ${points(row.high)}`)},
    {title: "p", number: true, cell: (row) => h("span", {class: "once", title: row.test}, pValue(row.p))},
    several && {title: "p by Holm", number: true, cell: (row) => h("span", {class: "once"}, pValue(row.adjusted))},
    {title: "n", number: true, cell: (row) => count(row.n)}, {title: "only A / only other right", number: true, cell: (row) => h("span", {class: "once"}, `${row.only_a} / ${row.only_b}`)},
  ].filter(Boolean);
}

/** What may be said: the comparison's own words, unless adjusting for several comparisons takes them back. */
function conclusion(row, several) {
  const words = row.comparison.conclusion.replaceAll(/\bB\b/g, row.letter);
  const lost = several && known(row.p) && row.p < 0.05 && row.adjusted >= 0.05;
  return lost ? `no clear difference between A and ${row.letter} once several comparisons are taken into account` : words;
}

function onlyOne(title, keys, first, other, letter, samples) {
  const {columns} = samples;
  const places = new Map(columns.key.map((key, at) => [key, at]));
  const rows = keys.map((key) => ({key, at: places.get(key)}));
  const to = (run, key, words) => h("a", {href: link(["run", run.id, "sample", key])}, words);
  return h("article", {}, h("h4", {}, title), rows.length ? h("div", {class: "keys"}, table(title, [
    {title: "sample", cell: (row) => columns.id[row.at] ?? row.key}, {title: "context", number: true, cell: (row) => known(row.at) && tokens(columns.length[row.at])},
    {title: "depth", number: true, cell: (row) => known(row.at) && percent(columns.depth[row.at], 0)}, {title: "answers of", cell: (row) => [to(first, row.key, "A"), " ", to(other, row.key, letter)]},
  ], rows)) : h("p", {class: "note"}, "none"));
}

function comparedQuestions(found) {
  const tables = found.flatMap((one) => one.questions.tables.map((own) => ({letter: one.letter, ...own, ...own.comparisons[0], a: own.rows[0].accuracy, b: own.rows[1].accuracy})));
  const adjusted = holm(tables.map((one) => one.p));
  return section("Paired differences over questions, points", table("Paired differences over questions", differenceColumns([
    {title: "", cell: (row) => h("strong", {}, `${row.letter} − A`)}, {title: "judge", cell: (row) => row.judge},
  ], tables.length > 1), tables.map((one, at) => ({...one, adjusted: adjusted[at]})), {class: "stack"}));
}

function trackView() {
  const rows = index.track ?? [];
  const series = [...new Set(rows.map((row) => row.series))];
  if (!rows.length) return missing("None of these runs says the step of its checkpoint.");
  return {
    title: "Training",
    body: [h("h1", {}, "Accuracy over training"), series.map((name) => {
      const own = rows.filter((row) => row.series === name);
      const steps = new Set(own.map((row) => row.step)).size;
      return section(name, h("p", {class: "note"}, `Average accuracy in percent with 95${NARROW}% intervals${own.some((row) => row.gates_by_layer) ? "; gates from 0 (local attention only) to 1 (memory only), lighter: later layers" : ""}.`), steps > 1 && overTraining(own), h("details", {open: steps < 2}, h("summary", {}, "As a table"), table(`Accuracy over the steps of ${name}`, [
        {title: "step", number: true, cell: (row) => (row.run ? h("a", {href: link(["run", row.run])}, count(row.step)) : count(row.step))}, {title: "context", cell: (row) => tokens(row.context_length)},
        {title: "accuracy", class: "wide-cell", cell: measuredCell}, {title: `95${NARROW}% interval`, class: "quiet", cell: (row) => ends(row.ci_low, row.ci_high)}, {title: "n", number: true, cell: (row) => count(row.num_samples)},
        {title: "mean gate", number: true, cell: (row) => (known(row.gate_mean) ? row.gate_mean.toFixed(4) : "")},
      ], own)));
    })],
  };
}
