// Charts, drawn by Observable Plot as SVG in the colours of the page; tables beside them hold the same numbers.
"use strict";

const AXIS = {domain: [0, 100], ticks: [0, 25, 50, 75, 100], grid: true, label: null, tickFormat: (value) => `${value}`};
const SERIES = ["var(--blue)", "var(--orange)", "var(--green)", "var(--pink)", "var(--amber)", "var(--sky)"];

/** A chart in a figure that is drawn again where its width changes: draw(width) gives Plot's options. */
function chart(caption, draw, most = 640) {
  const box = h("div", {class: "chart"});
  const figure = h("figure", {}, box, h("figcaption", {}, unbroken(caption)));
  let drawn = 0;
  new ResizeObserver(() => {
    const width = Math.min(most, Math.floor(box.clientWidth));
    if (!width || width === drawn) return;
    drawn = width;
    const svg = Plot.plot({width, marginBottom: 42, style: {fontSize: "12px", background: "transparent"}, ariaLabel: caption, ...draw(width)});
    box.replaceChildren(svg);
  }).observe(box);
  return figure;
}

/** Points with their intervals, and a line through them: [{x, y, low, high, words}]. */
function intervals(rows, colour, more = {}) {
  return [
    Plot.ruleX(rows, {x: "x", y1: "low", y2: "high", stroke: colour, strokeWidth: 1.6, strokeOpacity: 0.55}),
    more.line === false ? null : Plot.line(rows, {x: "x", y: "y", stroke: colour, strokeWidth: 1.8, strokeDasharray: more.dash}),
    Plot.dot(rows, {x: "x", y: "y", fill: colour, r: 3, symbol: more.symbol, title: "words", tip: {fill: "var(--paper)", stroke: "var(--line)"}}),
  ];
}

const cellWords = (cell) =>
  `${plain(cell.depth_percent)} % deep: ${percent(cell.accuracy)} (${ends(cell.ci_low, cell.ci_high)}), ${cell.correct} of ${cell.num_samples} right` +
  (cell.failed ? `, ${cell.failed} failed` : "");

/** Small multiples: accuracy by depth with intervals, one chart a context length, all on the same axes. */
function byDepth(blocks) {
  return h("div", {class: "multiples"}, blocks.map((block) => {
    const rows = block.results_by_depth.filter((cell) => known(cell.accuracy)).map((cell) => ({
      x: cell.depth_percent, y: cell.accuracy, low: cell.ci_low, high: cell.ci_high, words: cellWords(cell),
    }));
    const failed = block.failed ? `, ${block.failed} failed` : "";
    const title = `${tokens(block.context_length)}: ${percent(block.summary_stats.average_accuracy) || "no answer"}, n = ${block.total_samples}${failed}`;
    return chart(title, () => ({
      height: 182, marginLeft: 34, marginRight: 12, x: {domain: [0, 100], ticks: [0, 50, 100], label: "depth, %"}, y: AXIS,
      marks: intervals(rows, "var(--blue)"),
    }), 420);
  }));
}

/** The average by context length, with the bars that define an effective length. */
function byLength(summary) {
  const rows = summary.by_context_length.filter((block) => block.context_length && known(block.summary_stats.average_accuracy)).map((block) => {
    const stats = block.summary_stats;
    const words = `${tokens(block.context_length)} tokens: ${percent(stats.average_accuracy)} (${ends(stats.average_ci_low, stats.average_ci_high)}), n = ${block.total_samples}`;
    return {x: block.context_length, y: stats.average_accuracy, low: stats.average_ci_low, high: stats.average_ci_high, words};
  });
  if (rows.length < 2) return null;
  const found = summary.effective_context_length;
  const bars = found ? [found.fixed, found.relative].filter(Boolean).map((one) => one.threshold) : [];
  return chart("Average over depths by context length, %, with 95 % intervals; dashed: the bars of the effective length", () => ({
    height: 260, marginLeft: 34, marginRight: 20, y: AXIS,
    x: {type: "log", base: 2, ticks: rows.map((row) => row.x), tickFormat: tokens, label: "context, tokens"},
    marks: [Plot.ruleY(bars, {stroke: "var(--soft)", strokeDasharray: "4 4"}), ...intervals(rows, "var(--blue)")],
  }));
}

/** Accuracy by compressions with the fitted curve, on a logarithm of 1 + compressions. */
function byCompressions(summary) {
  const cells = summary.segment_analysis.by_compressions;
  if (cells.length < 2) return null;
  const named = (cell) => (cell.from === cell.to ? `${cell.from}` : `${cell.from}-${cell.to}`);
  const rows = cells.map((cell) => ({
    x: 1 + Math.sqrt(cell.from * cell.to), y: cell.accuracy, low: cell.ci_low, high: cell.ci_high, label: named(cell),
    words: `${named(cell)} compressions: ${percent(cell.accuracy)} (${ends(cell.ci_low, cell.ci_high)}), n = ${cell.num_samples}`,
  }));
  const curve = summary.trends.compressions.curve.map((point) => ({x: 1 + point.x, y: point.accuracy, low: point.ci_low, high: point.ci_high}));
  const labels = new Map(rows.map((row) => [row.x, row.label]));
  return chart("Accuracy by compressions (segment borders between needle and question), %; orange: logistic fit", (width) => {
    const every = Math.ceil(rows.length / (width / 48));
    return {
      height: 260, marginLeft: 34, marginRight: 20, y: AXIS,
      x: {type: "log", base: 2, ticks: rows.filter((_, at) => at % every === 0).map((row) => row.x), tickFormat: (x) => labels.get(x) ?? "", label: "compressions"},
      marks: [
        Plot.areaY(curve, {x: "x", y1: "low", y2: "high", fill: "var(--orange)", fillOpacity: 0.15}),
        Plot.line(curve, {x: "x", y: "y", stroke: "var(--orange)", strokeDasharray: "5 3"}),
        ...intervals(rows, "var(--blue)", {line: false}),
      ],
    };
  });
}

/** A number as a colour of the map from dark blue (least) to yellow (most), and ink that reads on it. */
function shade(share) {
  const colour = d3.interpolateCividis(Math.max(0, Math.min(1, share)));
  return {background: colour, color: share < 0.48 ? "#fff" : "#111"};
}

/** Lengths downwards, depths to the right: each cell is a link to its samples; a star where some failed. */
function heatMap(id, blocks, most = 100) {
  const depths = [...new Set(blocks.flatMap((block) => block.results_by_depth.map((cell) => cell.depth_percent)))].sort((a, b) => a - b);
  const head = depths.map((depth) => h("th", {scope: "col"}, plain(depth)));
  const rows = blocks.map((block) => {
    const cells = new Map(block.results_by_depth.map((cell) => [cell.depth_percent, cell]));
    return h("tr", {}, h("th", {scope: "row"}, tokens(block.context_length)), depths.map((depth) => heatCell(id, block, cells.get(depth), most)));
  });
  const failed = blocks.some((block) => block.failed) ? "; * some failed" : "";
  const words = `Accuracy in percent. Right: depth of the needle in percent (0 start, 100 right before the question); down: context in tokens. A cell opens its samples${failed}.`;
  return grid("Accuracy by depth and context length", words, head, rows);
}

function heatCell(id, block, cell, most) {
  if (!cell) return h("td");
  const shown = known(cell.accuracy) ? cell.accuracy.toFixed(0) : "";
  const words = `${tokens(block.context_length)} tokens, ${cellWords(cell)}`;
  const target = link(["run", id, "samples"], {length: block.context_length ?? "none", depth: cell.depth_percent});
  const style = known(cell.accuracy) ? shade(cell.accuracy / most) : {};
  return h("td", {}, h("a", {href: target, "aria-label": words, title: words, style}, shown + (cell.failed ? "*" : "")));
}

function grid(name, words, head, rows) {
  return h("div", {}, h("p", {class: "note"}, words), h("div", {class: "wide", tabindex: "0", role: "region", "aria-label": name},
    h("table", {class: "heat"}, h("caption", {class: "unseen"}, name), h("thead", {}, h("tr", {}, h("td"), head)), h("tbody", {}, rows))));
}

/** A grid of numbers, layers downwards and heads to the right: value(layer, head) in 0..1 is its shade. */
function headMap(caption, values, share, words) {
  const head = values[0].map((_, at) => h("th", {scope: "col"}, at));
  const rows = values.map((own, layer) => h("tr", {}, h("th", {scope: "row"}, `layer ${layer}`),
    own.map((value) => h("td", {}, h("span", {style: shade(share(value))}, words(value))))));
  return grid(caption, caption, head, rows);
}

/** Differences in points from the first run, with intervals, over depth or length: [{name, rows: [{x, y, low, high, words}]}]. */
function differences(caption, label, series, logarithmic = false) {
  const all = series.flatMap((one) => one.rows);
  const reach = Math.max(5, ...all.map((row) => Math.max(Math.abs(row.low), Math.abs(row.high))));
  const ticks = [...new Set(all.map((row) => row.x))].sort((a, b) => a - b);
  const x = logarithmic ? {type: "log", base: 2, ticks, tickFormat: tokens, label} : {domain: [0, 100], ticks: [0, 25, 50, 75, 100], label};
  return h("div", {}, legend(series.map((one) => one.name)), chart(caption, () => ({
    height: 260, marginLeft: 40, marginRight: 20, x, y: {domain: [-reach, reach], grid: true, label: null, tickFormat: (value) => (value ? points(value).replace(".0", "") : "0")},
    marks: [Plot.ruleY([0], {stroke: "var(--soft)"}), ...series.flatMap((one, at) => intervals(one.rows, SERIES[(at + 1) % SERIES.length]))],
  })));
}

/** Names beside their colours, where there are several. */
function legend(names, from = 1) {
  if (names.length < 2) return null;
  return h("ul", {class: "legend"}, names.map((name, at) => h("li", {}, h("i", {style: {background: SERIES[(at + from) % SERIES.length]}}), name)));
}

/** Accuracy over the steps of a training run, one chart a length, and each layer's mean gate. */
function overTraining(rows) {
  const lengths = [...new Set(rows.map((row) => row.context_length))];
  const step = {label: "training step", ticks: 4, tickFormat: "~s"};
  const charts = lengths.map((length) => {
    const own = rows.filter((row) => row.context_length === length).map((row) => ({
      x: row.step, y: row.accuracy, low: row.ci_low, high: row.ci_high,
      words: `step ${row.step}: ${percent(row.accuracy)} (${ends(row.ci_low, row.ci_high)}), n = ${row.num_samples}`,
    }));
    return chart(`${tokens(length)} tokens`, () => ({
      height: 200, marginLeft: 34, marginRight: 20, x: step, y: AXIS, marks: intervals(own, "var(--blue)"),
    }), 420);
  });
  const gates = rows.filter((row) => row.gates_by_layer && row.context_length === lengths[0]);
  if (gates.length) {
    const layers = gates.flatMap((row) => row.gates_by_layer.map((gate, layer) => ({x: row.step, y: gate, layer, words: `layer ${layer}, step ${row.step}: ${gate.toFixed(3)}`})));
    const most = Math.max(1, ...layers.map((row) => row.layer));
    charts.push(chart("Mean gate of each layer", () => ({
      height: 200, marginLeft: 34, marginRight: 20, x: step, y: {domain: [0, 1], grid: true, label: null},
      marks: [
        Plot.line(layers, {x: "x", y: "y", z: "layer", stroke: (row) => d3.interpolateViridis(0.15 + 0.7 * row.layer / most)}),
        Plot.dot(layers, {x: "x", y: "y", fill: (row) => d3.interpolateViridis(0.15 + 0.7 * row.layer / most), r: 2.5, title: "words", tip: {fill: "var(--paper)", stroke: "var(--line)"}}),
      ],
    }), 420));
  }
  return h("div", {class: "multiples"}, charts);
}

/** Where needle and question lie among the segments: a strip from the first token to the last. */
function segmentPicture(sample, length) {
  const total = sample.prompt_tokens;
  if (!total || !known(sample.needle_token_start)) return null;
  const segments = length ? Math.ceil(total / length) : 1;
  const at = (token) => (100 * token) / total;
  const strip = h("div", {class: "strip"});
  const area = (name, from, to) => strip.append(h("i", {class: name, style: {left: `${at(from)}%`, width: `${at(Math.min(to, total) - from)}%`}}));
  if (length && known(sample.needle_segment)) area("own", sample.needle_segment * length, (sample.needle_segment + 1) * length);
  if (length && known(sample.question_segment)) area("asked", sample.question_segment * length, (sample.question_segment + 1) * length);
  const every = Math.ceil(segments / 64);
  for (let border = every; border < segments; border += every) strip.append(h("b", {style: {left: `${at(border * length)}%`}}));
  strip.append(h("i", {class: "here", style: {left: `${at(sample.needle_token_start)}%`, width: `${at(sample.needle_token_end - sample.needle_token_start)}%`}}));
  strip.append(h("i", {class: "end"}));
  const straddles = sample.needle_straddles_border ? ", across a segment border" : "";
  const where = known(sample.needle_segment) ? `, segment ${sample.needle_segment}${straddles}` : "";
  const asked = known(sample.question_segment) ? `segment ${sample.question_segment}, offset ${sample.phase} of it` : `token ${count(total)}`;
  const drawn = every > 1 ? `, every ${every}th border drawn` : "";
  return h("div", {}, strip,
    h("ul", {class: "legend"},
      h("li", {}, h("i", {class: "here"}), `needle: tokens ${count(sample.needle_token_start)} to ${count(sample.needle_token_end)}${where}`),
      h("li", {}, h("i", {class: "end"}), `question: ${asked}${sample.answer_crosses_border ? "; the answer runs over a border" : ""}`),
      h("li", {}, length ? `${count(segments)} segments of ${length} tokens${drawn}` : `${count(total)} tokens, a model without segments`),
      known(sample.compressions) && h("li", {}, `${count(sample.compressions)} compressions between them`)));
}
