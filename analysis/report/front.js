// The plot of the front, with points that mouse and keyboard can select, and their details.

const AXES = {
  flopsShare: { name: "FLOPs", label: "FLOPs, share of dense", share: true },
  paramsShare: { name: "params", label: "params, share of dense", share: true },
  latency: { name: "latency", label: "latency in ms, batch of one" },
};
const SYMBOLS = { front: ["circle", 5.5], answer: ["star", 10], control: ["cross", 7],
  dense: ["square", 6], trial: ["circle", 3.5] };
const NAMES = { front: "front", answer: "at the target", control: "control", dense: "dense",
  trial: "other trials" };

// The marker of a point; the network at the target may be on the front as well.
function kindOf(point) {
  return point.answer ? "answer" : point.front ? "front" : point.kind;
}
function figuresOf(point) {
  const parts = [`accuracy ${accuracy(point.accuracy)}`, `FLOPs ${percent(point.flopsShare)}`,
    `params ${percent(point.paramsShare)}`];
  if (point.latency !== null) parts.push(milliseconds(point.latency));
  return parts.join(", ");
}
function describe(point) {
  const badge = kindOf(point) === "trial" ? "not on the front" : NAMES[kindOf(point)];
  return `${point.name}, ${badge}: ${figuresOf(point)}. ${point.words}`;
}

// The points of the front that are more accurate than every smaller one.
function edgeOf(found, axis) {
  const ordered = found.filter((point) => point.front && point[axis] !== null)
    .sort((a, b) => a[axis] - b[axis] || b.accuracy - a.accuracy);
  let best = -Infinity;
  return ordered.filter((point) => point.accuracy > best && (best = point.accuracy, true));
}

function drawFront() {
  const axis = AXES[state.axis];
  const known = everything().filter((point) => point[state.axis] !== null);
  const main = known.filter((point) => kindOf(point) !== "trial");
  const inView = state.view === "all" ? known : main;
  const sizes = inView.map((point) => point[state.axis]);
  const heights = inView.map((point) => point.accuracy);
  const range = span(state.view === "all" ? heights : notCollapsed(heights));
  const visible = (point) => point.accuracy >= range[0];
  const shown = known.filter((point) => visible(point) || kindOf(point) !== "trial");
  const frame = chart(byId("plot"), {
    x: { range: axis.share ? [0, 1.05] : [0, 1.08 * Math.max(...sizes)], label: axis.label,
      format: axis.share ? (value) => `${Number((100 * value).toFixed(6))} %` : neat },
    y: { range, label: "validation accuracy" }, interactive: true,
    label: `Accuracy against ${axis.name}: ${main.length} marked networks. Arrow keys move between them.`,
  });
  drawTarget(frame);
  const edge = edgeOf(known.filter(visible), state.axis).map((p) => [frame.px(p[state.axis]), frame.py(p.accuracy)]);
  frame.svg.append(draw("path", { class: "edge", d: path(edge) || "M0,0" }));
  const order = ["trial", "control", "dense", "front", "answer"];
  const ranked = [...shown].sort((a, b) => order.indexOf(kindOf(a)) - order.indexOf(kindOf(b)));
  const nodes = new Map(ranked.map((point) => [point.id,
    pointNode(point, frame, visible(point))]));
  frame.svg.append(...nodes.values());
  const first = nodes.get(state.selected) || [...nodes.values()].at(-1);
  first?.setAttribute("tabindex", "0");
  const below = known.filter((point) => !visible(point)).length;
  drawLegend(new Set(ranked.map(kindOf)), below);
}

function drawTarget(frame) {
  const target = { flopsShare: values.target.flops, paramsShare: values.target.params }[state.axis];
  if (!target) return;
  const x = frame.px(target);
  frame.svg.append(draw("line", { class: "limit", x1: x, x2: x, y1: frame.top, y2: frame.bottom }),
    draw("text", { class: "limit-name", x: x + 5, y: frame.bottom - 7 }, "target"));
}

// A point below the view is drawn on its edge, as a triangle that points down.
function pointNode(point, frame, visible) {
  const kind = kindOf(point), [own, radius] = SYMBOLS[kind], shape = visible ? own : "down";
  const x = frame.px(point[state.axis]), y = visible ? frame.py(point.accuracy) : frame.bottom;
  const show = () => showTip(point, x, y, frame);
  return draw("g", { class: `point ${kind}${point.front ? " on-front" : ""}`, tabindex: "-1",
    role: "button", transform: `translate(${x.toFixed(1)},${y.toFixed(1)})`,
    "data-id": point.id, "aria-label": describe(point),
    "aria-pressed": String(point.id === state.selected),
    onmouseenter: show, onmouseleave: hideTip, onfocus: show, onblur: hideTip,
    onclick: () => select(point.id), onkeydown: (event) => walk(event, point.id) },
  draw("circle", { class: "hit", r: kind === "trial" ? 7 : 13 }),
  draw("circle", { class: "ring", r: radius + 5 }),
  draw("path", { class: "mark", d: SHAPES[shape](radius) }));
}

// Enter and space select a point; the arrow keys move to the next one by size.
function walk(event, id) {
  if (event.key === "Enter" || event.key === " ") {
    event.preventDefault();
    return select(id);
  }
  const ids = everything().filter((point) => byPoint(point.id))
    .sort((a, b) => a[state.axis] - b[state.axis]).map((point) => point.id);
  const place = ids.indexOf(id);
  const to = { ArrowRight: place + 1, ArrowDown: place + 1, ArrowLeft: place - 1,
    ArrowUp: place - 1, Home: 0, End: ids.length - 1 }[event.key];
  if (to === undefined || !ids[to]) return;
  event.preventDefault();
  byPoint(id).setAttribute("tabindex", "-1");
  byPoint(ids[to]).setAttribute("tabindex", "0");
  byPoint(ids[to]).focus();
}
function byPoint(id) {
  return [...document.querySelectorAll("#plot .point")].find((node) => node.dataset.id === id);
}

function showTip(point, x, y, frame) {
  hideTip();
  const tip = el("div", { class: "tip", "aria-hidden": "true" }, el("b", {}, point.name),
    figuresOf(point), el("br"), point.words);
  byId("plot").append(tip);
  const scale = byId("plot").clientWidth / frame.width;
  const left = Math.min(Math.max(x * scale + 12, 0), byId("plot").clientWidth - tip.offsetWidth);
  tip.style.left = `${left}px`;
  const above = y * scale - tip.offsetHeight - 12;
  tip.style.top = `${above > 0 ? above : y * scale + 14}px`;
}
function hideTip() {
  document.querySelector("#plot .tip")?.remove();
}

function drawLegend(kinds, below) {
  const items = Object.keys(NAMES).filter((kind) => kinds.has(kind)).map((kind) =>
    el("li", { class: kind }, draw("svg", { viewBox: "-10 -10 20 20", "aria-hidden": "true" },
      draw("path", { class: "mark", d: SHAPES[SYMBOLS[kind][0]](SYMBOLS[kind][1]) })), NAMES[kind]));
  if (below) items.push(el("li", {}, `${below} below this view`));
  put("legend", ...items);
}

function drawDetails() {
  const point = chosen(), dense = values.dense, kind = kindOf(point);
  const badge = kind === "trial" ? "trial" : NAMES[kind];
  const rows = [["accuracy", `${accuracy(point.accuracy)} (${points(point.accuracy - dense.accuracy)})`],
    ["test accuracy", accuracy(point.test)], ["loss", point.loss === null ? "–" : neat(point.loss)],
    ["FLOPs (MACs)", `${amount(point.macs)}, ${percent(point.flopsShare)}`],
    ["params", `${amount(point.params)}, ${percent(point.paramsShare)}`],
    ["latency", milliseconds(point.latency)]];
  if (point.origin) rows.push(["origin", point.origin]);
  if (point.epochs !== null) rows.push(["epochs", neat(point.epochs)],
    ["duration", `${neat(point.seconds)} s`]);
  const title = el("h3", {}, point.name, el("span", { class: `badge ${kind}` }, badge));
  const name = point.answer && point.dominator !== null
    ? el("p", { class: "hint" }, `Dominated by trial ${point.dominator}; ${insteadOf(point)}.`) : null;
  put("details", title, ...[name].filter(Boolean), el("p", {}, point.words), pairsOf(rows),
    ...(point.pick ? [commandOf(point.pick)] : []), ...(point.policy.length ? [policyOf(point)] : []));
}
function pairsOf(rows) {
  return el("dl", {}, ...rows.flatMap(([name, value]) => [el("dt", {}, name), el("dd", {}, value)]));
}
function policyOf(point) {
  return el("details", { open: state.open, ontoggle: (event) => { state.open = event.target.open; } },
    el("summary", {}, "full policy"), pairsOf(point.policy));
}
function commandOf(command) {
  return el("div", { class: "command" }, el("code", {},
    ...command.split(" ").map((word, k) => el("span", {}, k ? ` ${word}` : word))), copyButton(command, "Copy"));
}
function copyButton(command, label) {
  return el("button", { type: "button", class: "copy", "aria-label": `Copy: ${command}`,
    onclick: async (event) => {
      event.stopPropagation();
      const button = event.currentTarget;
      button.textContent = await copy(command) ? "Copied" : "Press Ctrl-C";
      setTimeout(() => { button.textContent = label; }, 1500);
    } }, label);
}
async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch { // fallback: some browsers deny the clipboard to local files
    const area = el("textarea", { readonly: true }, text);
    document.body.append(area);
    area.select();
    const done = document.execCommand("copy");
    area.remove();
    return done;
  }
}
