// The state of the page, its changes, and the updates from a running search.

const state = { axis: "flopsShare", view: "front", selected: null, sort: "accuracy", down: true,
  filter: "", only: "all", open: false, score: 0, curve: 0 };
let values = JSON.parse(byId("values").textContent);
const LIVE = document.body.dataset.live === "true";
const REFRESH = 2000; // milliseconds between requests of a live page

// All networks, including dense; `order` sorts them by name.
function everything() {
  const dense = values.dense;
  const all = values.points.map((point, order) => ({ ...point, order }));
  return dense ? [...all, { id: "dense", name: "dense", kind: "dense", front: false, answer: false,
    accuracy: dense.accuracy, test: dense.test_accuracy, loss: null, macs: dense.macs,
    params: dense.params, flopsShare: 1, paramsShare: 1, latency: dense.latency_ms, epochs: null,
    seconds: null, words: "the network before pruning", policy: [], kept: null, pick: null,
    threshold: null, origin: null, dominator: null, order: all.length }] : all;
}
function chosen() {
  return everything().find((point) => point.id === state.selected);
}

function select(id) {
  const back = document.activeElement?.closest?.("#plot .point, #table tr")?.closest("#plot, #table");
  state.selected = id;
  for (const node of document.querySelectorAll("#plot .point")) {
    node.setAttribute("aria-pressed", String(node.dataset.id === id));
    node.setAttribute("tabindex", node.dataset.id === id ? "0" : "-1");
  }
  for (const row of document.querySelectorAll("#table tbody tr"))
    row.setAttribute("aria-selected", String(row.dataset.id === id));
  if (back?.id === "plot") byPoint(id)?.focus();
  drawChosen();
}
function drawChosen() {
  drawDetails();
  drawWidths();
  drawCourse();
  drawCurves();
}

// Redraw a section only if its data has changed, which keeps focus and scroll position.
const drawn = {};
function renew(name, shows, redraw) {
  const now = JSON.stringify(shows);
  if (drawn[name] === now) return;
  drawn[name] = now;
  redraw();
}
function drawAll() {
  const back = placeOf(document.activeElement);
  byId("waiting").hidden = Boolean(values.points.length);
  byId("found").hidden = !values.points.length;
  drawHeadline();
  drawFailures();
  drawSettings();
  if (!values.points.length) return;
  if (!chosen()) state.selected = firstChoice();
  choices("axis", AXES, "axis", (key) => everything().filter((p) => p[key] !== null).length > 1);
  choices("view", { front: { name: "front" }, all: { name: "all trials" } }, "view");
  choices("only", { all: { name: "all" }, front: { name: "front" } }, "only", null, drawTable);
  const { points, dense, target, groups, evidence } = values;
  renew("front", [points, dense, target], drawFront);
  renew("table", [points, dense], drawTable);
  renew("chosen", [chosen(), dense, groups, evidence], drawChosen);
  renew("mattered", values.insights, drawMattered);
  renew("history", values.history, drawHistory);
  renew("scores", [evidence.scores, groups], drawScores);
  back?.();
}
// Return a function that restores the focus to the same point or button.
function placeOf(node) {
  const point = node?.closest?.("#plot .point"), row = node?.closest?.("#table tbody tr");
  if (point) return () => byPoint(point.dataset.id)?.focus();
  if (!row) return null;
  const again = () => [...document.querySelectorAll("#table tbody tr")]
    .find((one) => one.dataset.id === row.dataset.id)?.querySelector(`button.${node.className}`);
  return () => again()?.focus();
}
function firstChoice() {
  const best = [...values.points].sort((a, b) => b.front - a.front || b.accuracy - a.accuracy);
  return (values.points.find((point) => point.answer) || best[0]).id;
}

// A row of radio buttons; built once, so that the focus is kept.
function choices(id, options, key, possible, redraw = drawFront) {
  const box = byId(id);
  const keys = Object.keys(options).filter((name) => !possible || possible(name));
  box.hidden = keys.length < 2;
  if (box.dataset.keys === keys.join()) return;
  box.dataset.keys = keys.join();
  box.querySelectorAll("label").forEach((label) => label.remove());
  box.append(...keys.map((name) => el("label", {}, el("input", { type: "radio", name: id,
    value: name, checked: state[key] === name, onchange: () => { state[key] = name; redraw(); } }),
  el("span", {}, options[name].name))));
}

byId("filter").addEventListener("input", (event) => {
  state.filter = event.target.value;
  drawTable();
});
for (const [id, redraw] of [["score", drawScores], ["curve", drawCurves]])
  byId(id).addEventListener("change", (event) => { state[id] = Number(event.target.value); redraw(); });

byId("plain").remove();
byId("page").hidden = false;
drawAll();

let drawnAt = window.innerWidth;
window.addEventListener("resize", () => {
  if (window.innerWidth === drawnAt || !values.points.length) return;
  drawnAt = window.innerWidth;
  drawFront();
  drawHistory();
  drawScores();
  drawCourse();
  drawCurves();
});

// A live page polls for new values; the selection is kept.
async function ask(tag) {
  let news = tag;
  try {
    const answer = await fetch("values.json", tag ? { headers: { "If-None-Match": tag } } : {});
    if (answer.status === 200) {
      values = await answer.json();
      news = answer.headers.get("ETag");
      drawAll();
    } else if (answer.status !== 304) byId("status").textContent = await answer.text();
  } catch {
    byId("status").textContent = "paretoprune watch has stopped; these are the last values";
  }
  setTimeout(() => ask(news), REFRESH);
}
if (LIVE) ask("");
