// The other sections: headline, widths, table, importances, history, failures, settings.

function drawHeadline() {
  const dense = values.dense, answer = values.points.find((point) => point.answer);
  const cards = [];
  if (dense) cards.push(cardOf("dense", "Dense", accuracy(dense.accuracy),
    testOf(dense.test_accuracy), `${amount(dense.macs)} MACs, ${amount(dense.params)} params`,
    dense.latency_ms === null ? null : milliseconds(dense.latency_ms)));
  if (answer) cards.unshift(cardOf("target", `At the target: ${answer.name}`,
    accuracy(answer.accuracy), `${points(answer.accuracy - dense.accuracy)} compared with dense`,
    testOf(answer.test), insteadOf(answer), `requested: ${asked()}`,
    `result: FLOPs ${percent(answer.flopsShare)}, params ${percent(answer.paramsShare)}`,
    answer.latency === null || dense.latency_ms === null ? null
      : `${milliseconds(answer.latency)}, ${(dense.latency_ms / answer.latency).toFixed(2)}× dense speed`));
  else if (dense) cards.unshift(cardOf("target", "At the target", "–", "no trial yet",
    `requested: ${asked()}`));
  for (const control of values.points.filter((point) => point.kind === "control"))
    cards.push(cardOf("control", control.name, accuracy(control.accuracy),
      answer ? `${points(control.accuracy - answer.accuracy)} compared with the answer` : null,
      testOf(control.test), `FLOPs ${percent(control.flopsShare)}`));
  put("headline", ...cards);
  byId("verdict").textContent = values.verdict;
  byId("verdict").hidden = !values.verdict;
  const counts = values.counts;
  const parts = [`${counts.settled} of ${Math.max(values.planned, counts.settled)} trials settled`];
  if (counts.running) parts.push(`${counts.running} ${LIVE ? "running" : "not finished"}`);
  if (counts.stopped) parts.push(`${counts.stopped} stopped early`);
  if (counts.repeats) parts.push(`${counts.repeats} duplicates`);
  if (values.failures.length) parts.push(`${values.failures.length} failed`);
  const onFront = values.points.filter((point) => point.front).length;
  parts.push(`${onFront} on the front`);
  byId("status").textContent = parts.join(" · ");
}
function cardOf(kind, name, figure, ...lines) {
  return el("div", { class: "card", style: `--kind: var(--${kind})` },
    el("span", { class: "name" }, name), el("b", {}, figure),
    ...lines.filter(Boolean).map((line) => el("span", {}, line)));
}
// Another point may be more accurate at the same or a smaller size.
function insteadOf(answer) {
  const better = values.points.find((point) => point.id === values.picked && point.front);
  return better && better.id !== answer.id
    ? `pick gives ${better.name}: ${accuracy(better.accuracy)}` : null;
}
const asked = () => values.asked.replaceAll("<=", "≤");
const testOf = (value) => value === null ? null : `test ${accuracy(value)}`;

function drawWidths() {
  const point = chosen(), kept = point.kind === "dense"
    ? values.groups.map((group) => group.atoms) : point.kept;
  byId("widths-section").hidden = !values.groups.length;
  byId("widths-name").textContent = point.name;
  if (!kept) return put("widths", el("p", { class: "hint" }, "The recipe of this network is not in the run folder."));
  const rows = values.groups.map((group, k) => {
    const more = group.layers.length - 1;
    const title = group.layers.map(([name, width]) => `${name}: ${width} channels, dense`).join("\n");
    return el("tr", { title }, el("td", { class: "left" }, group.name,
      more ? el("span", { class: "hint" }, ` + ${more} coupled`) : null),
    el("td", {}, trackOf(kept[k] / group.atoms)),
    el("td", { class: "nowrap" }, `${kept[k]} of ${group.atoms}`),
    el("td", {}, percent(kept[k] / group.atoms)));
  });
  put("widths", el("table", {}, headOf(["group", "kept", "atoms", "share"]), el("tbody", {}, ...rows)));
}
function trackOf(share, unclear, chance) {
  return el("div", { class: "track" },
    el("div", { class: `fill${unclear ? " unclear" : ""}`, style: `width: ${100 * share}%` }),
    chance === undefined ? null : el("div", { class: "chance", style: `left: ${100 * chance}%` }));
}
function headOf(names) {
  return el("thead", {}, el("tr", {}, ...names.map((name, k) =>
    el("th", { scope: "col", class: k ? "" : "left" }, name))));
}

const COLUMNS = [
  { key: "name", label: "trial", get: (p) => p.order, text: (p) => p.name, left: true },
  { key: "accuracy", label: "accuracy", get: (p) => p.accuracy, text: (p) => accuracy(p.accuracy) },
  { key: "test", label: "test", get: (p) => p.test, text: (p) => accuracy(p.test) },
  { key: "flopsShare", label: "FLOPs", get: (p) => p.flopsShare, text: (p) => percent(p.flopsShare) },
  { key: "paramsShare", label: "params", get: (p) => p.paramsShare,
    text: (p) => percent(p.paramsShare) },
  { key: "latency", label: "latency", get: (p) => p.latency, text: (p) => milliseconds(p.latency) },
  { key: "seconds", label: "duration", get: (p) => p.seconds,
    text: (p) => p.seconds === null ? "–" : `${p.seconds.toFixed(1)} s` },
  { key: "words", label: "policy", get: (p) => p.words, text: (p) => p.words, left: true },
];

function drawTable() {
  const column = COLUMNS.find(({ key }) => key === state.sort), sign = state.down ? -1 : 1;
  const words = state.filter.toLowerCase().split(/\s+/).filter(Boolean);
  const rows = everything().filter((point) => state.only === "all" || point.front || point.answer)
    .filter((point) => words.every((word) => textOf(point).includes(word)))
    .sort((a, b) => compare(column.get(a), column.get(b), sign) || a.order - b.order);
  put("table", el("thead", {}, el("tr", {}, ...COLUMNS.map(sortHead), el("th", { class: "screen" },
    "pick"))), el("tbody", {}, ...rows.map(rowOf)));
  byId("count").textContent = `${rows.length} of ${everything().length} rows`;
}
// Missing values come last in both directions.
function compare(a, b, sign) {
  if (a === null || b === null) return (a === null) - (b === null);
  return sign * (a < b ? -1 : a > b ? 1 : 0);
}
function textOf(point) {
  return `${point.name} ${NAMES[kindOf(point)]} ${point.words} ${point.origin || ""}`.toLowerCase();
}
function sortHead({ key, label, left }) {
  const sorted = key === state.sort ? (state.down ? "descending" : "ascending") : null;
  return el("th", { scope: "col", class: left ? "left" : "", "aria-sort": sorted },
    el("button", { type: "button", "data-key": key, onclick: () => {
      state.down = key === state.sort ? !state.down : !left;
      state.sort = key;
      drawTable();
      document.querySelector(`#table th button[data-key="${key}"]`).focus();
    } }, label));
}
function rowOf(point) {
  const cells = COLUMNS.map(({ key, text, left }) => el("td", {
    class: `${left ? "left" : ""} ${key === "words" ? "words" : "nowrap"}` },
  ...(key === "name" ? nameCell(point) : [text(point)])));
  return el("tr", { "data-id": point.id, "aria-selected": String(point.id === state.selected),
    onclick: () => select(point.id) }, ...cells,
  el("td", { class: "screen" }, point.pick ? copyButton(point.pick, "Copy") : null));
}
function nameCell(point) {
  const kind = kindOf(point);
  const name = el("button", { type: "button", class: "link", onclick: () => {
    select(point.id);
    byId("details").scrollIntoView({ block: "nearest" });
  } }, point.name);
  return kind === "front" || kind === "answer"
    ? [name, el("span", { class: `badge ${kind}` }, NAMES[kind])] : [name];
}

function drawMattered() {
  const found = values.insights;
  const top = Math.max(...found.importances.map((one) => Math.max(one.share, one.chance)), 1e-9);
  const rows = found.importances.map((one) => el("tr", {},
    el("td", { class: "left" }, one.field.replaceAll("_", " ")),
    el("td", {}, trackOf(one.share / top, !one.clear, one.chance / top)),
    el("td", {}, percent(one.share)), el("td", {}, percent(one.chance))));
  const note = "Share of the accuracy differences between trials of similar size that each field of "
    + "the policy explains. The mark is the share that it explains of shuffled accuracies, by "
    + `chance; a grey bar ends before it. From ${found.trials} finished trials${found.stopped
      ? `, without ${found.stopped} trials that were stopped early` : ""}.`;
  const said = [found.note, found.screening && `Screening: ${found.screening}.`].filter(Boolean);
  put("mattered", ...said.map((line) => el("p", {}, line)),
    ...(rows.length ? [el("p", { class: "hint" }, note),
      el("table", {}, headOf(["policy field", "explains", "share", "chance"]),
        el("tbody", {}, ...rows)), el("h3", { style: "margin-top: 1rem" }, "Common to the policies of the front"),
      found.sentences.length ? el("ul", {}, ...found.sentences.map((line) => el("li", {}, line)))
        : el("p", {}, "No pattern that exceeds chance.")] : []));
}

function drawHistory() {
  byId("history-section").hidden = values.history.length < 2;
  if (values.history.length < 2) return;
  const last = values.history.at(-1);
  const frame = chart(byId("history"), {
    x: { range: [1, last[0]], label: "finished trials" }, height: 230,
    y: { range: span(values.history.map(([, value]) => value)), label: "hypervolume" },
    label: `Hypervolume after each trial: ${neat(values.history[0][1])} after the first, ${neat(last[1])} after ${last[0]}.`,
  });
  const steps = values.history.flatMap(([count, value], k) => (k
    ? [[count, values.history[k - 1][1]]] : []).concat([[count, value]]));
  frame.svg.append(draw("path", { class: "edge",
    d: path(steps.map(([x, y]) => [frame.px(x), frame.py(y)])) }));
}

function drawFailures() {
  byId("failures-section").hidden = !values.failures.length;
  put("failures", el("table", {}, headOf(["trial", "reason"]), el("tbody", {},
    ...values.failures.map(({ name, reason }) => el("tr", {}, el("td", { class: "left nowrap" }, name),
      el("td", { class: "left" }, reason))))));
}
function drawSettings() {
  for (const name of ["settings", "versions"])
    put(name, el("table", {}, el("tbody", {}, ...values[name].map(([key, value]) => el("tr", {},
      el("th", { scope: "row", class: "left" }, key.replaceAll("_", " ")), el("td", {}, value))))));
}
