// Plots of measurements: scores by group, loss curves, and the sizes during gate training.

function choiceOf(id, plots) {
  const select = byId(id), place = Math.min(state[id], plots.length - 1);
  select.replaceChildren(...plots.map((plot, k) => el("option", { value: k, selected: k === place },
    plot.name)));
  return plots[place];
}

function drawScores() {
  const plots = values.evidence.scores;
  byId("scores-section").hidden = !plots.length;
  if (!plots.length) return;
  const plot = choiceOf("score", plots), errors = plot.errors.length > 0;
  byId("scores-hint").textContent = `Each group's atoms in ascending order${errors
    ? ", with 95 % intervals" : ""}. Hover for the group's name.`;
  const ends = plot.values.flatMap((group, g) => group.flatMap((value, k) => errors
    ? [value - 1.96 * plot.errors[g][k], value + 1.96 * plot.errors[g][k]] : [value]));
  const log = Math.min(...ends) > 0 && Math.max(...ends) > 100 * Math.min(...ends);
  const count = plot.values.length, few = count <= 10 && byId("scores").clientWidth > 600;
  const frame = chart(byId("scores"), { height: 300,
    x: { range: [0, count], label: few ? "group, in layer order"
      : "group number, in layer order",
    ticks: few ? plot.values.map((_, g) => g + 0.5) : undefined,
    format: few ? (at) => shortened(values.groups[at - 0.5].name) : neat },
    y: { range: log ? [Math.min(...ends) / 1.2, Math.max(...ends) * 1.2] : span(ends), log,
      label: plot.unit },
    label: `${plot.name}: ${plot.unit} of the atoms of ${count} groups.` });
  plot.values.forEach((group, g) => frame.svg.append(bandOf(plot, group, g, frame)));
  drawSettled(plot.checks);
}
// Convergence of an ensemble's ranking over the number of masks.
function drawSettled(checks) {
  if (!checks.length) return put("settled");
  const [masks, held, agreed] = checks.at(-1);
  const words = `After ${masks.toLocaleString("en")} masks the rank correlation of two halves is ${
    neat(agreed)}, and the fit explains ${percent(held)} of the variance of held-out loss changes.`;
  if (checks.length < 2) return put("settled", el("p", { class: "hint" }, words));
  const frame = chart(byId("settled"), { height: 200,
    x: { range: [0, masks], label: "masks" },
    y: { range: [Math.min(0, ...checks.map((check) => check[1])), 1], label: "convergence" },
    label: words });
  [["held-out R²", "front", 1], ["agreement of halves", "target", 2]].forEach(([name, kind, at], k) => {
    const places = checks.map((check) => [frame.px(check[0]), frame.py(check[at])]);
    frame.svg.append(draw("path", { d: path(places), fill: "none", stroke: `var(--${kind})`,
      "stroke-width": 2 }), draw("text", { style: `fill: var(--${kind}); stroke: none`,
      x: frame.right - 240 + 100 * k, y: frame.top - 8 }, name),
    ...places.map(([x, y]) => draw("circle", { cx: x, cy: y, r: 3, fill: `var(--${kind})` })));
  });
  byId("settled").append(el("p", { class: "hint" }, words));
}
const shortened = (name) => name.length > 14 ? `…${name.slice(-13)}` : name;
function bandOf(plot, group, g, frame) {
  const color = `var(--${g % 2 ? "second" : "front"})`;
  const place = (k) => frame.px(g + 0.08 + 0.84 * (k + 0.5) / group.length);
  const bars = (plot.errors[g] || []).map((error, k) => draw("line", { x1: place(k), x2: place(k),
    y1: frame.py(group[k] - 1.96 * error), y2: frame.py(group[k] + 1.96 * error), stroke: color,
    "stroke-opacity": 0.45 }));
  const dots = group.map((value, k) => draw("circle", { cx: place(k), cy: frame.py(value), r: 2,
    fill: color }));
  return draw("g", {}, draw("title", {}, `${values.groups[g].name}: ${neat(group[0])} to ${
    neat(group.at(-1))}`), draw("rect", { x: frame.px(g), width: frame.px(g + 1) - frame.px(g),
    y: frame.top, height: frame.bottom - frame.top, fill: "transparent" }), ...bars, ...dots);
}

const LEAST = 1e-5; // a logarithmic axis has no zero
function drawCurves() {
  const plots = values.evidence.curves;
  byId("curves-section").hidden = !plots.length;
  if (!plots.length) return;
  const plot = choiceOf("curve", plots), point = chosen();
  const rises = plot.rise.flat().filter((value) => value > LEAST).concat([LEAST * 10]);
  const frame = chart(byId("curves"), { height: 320,
    x: { range: [0, 1], label: "atoms removed from the group", format: (v) => `${100 * v} %` },
    y: { range: [Math.max(Math.min(...rises) / 1.5, LEAST), Math.max(...rises) * 1.5], log: true,
      label: "rise of the loss" },
    label: `Rise of the loss as each of ${plot.rise.length} groups is pruned alone.` });
  const least = frame.svg, low = Math.max(Math.min(...rises) / 1.5, LEAST);
  const at = (removed, rise, g) => [frame.px(removed / values.groups[g].atoms),
    frame.py(Math.max(rise, low))];
  const cuts = [];
  plot.rise.forEach((rise, g) => {
    const color = `color-mix(in oklab, var(--target) ${Math.round(100 * g
      / Math.max(plot.rise.length - 1, 1))}%, var(--front))`;
    const line = path(rise.map((value, k) => at(plot.removed[g][k], value, g)));
    least.append(draw("g", {}, draw("title", {}, values.groups[g].name),
      draw("path", { d: line, fill: "none", stroke: color, "stroke-width": 1.6 })));
    if (!point.kept) return;
    const gone = values.groups[g].atoms - point.kept[g], height = riseAt(plot, g, gone);
    if (!gone || height === null) return;
    cuts.push(height);
    const [x, y] = at(gone, height, g);
    least.append(draw("circle", { cx: x, cy: y, r: 4, fill: color, class: "mark" },
      draw("title", {}, `${values.groups[g].name}: ${gone} removed`)));
  });
  const limit = point.threshold;
  if (limit) least.append(draw("line", { class: "limit", x1: frame.left, x2: frame.right,
    y1: frame.py(limit), y2: frame.py(limit) }), draw("text", { class: "limit-name",
    x: frame.left + 5, y: frame.py(limit) - 5 }, `threshold ${neat(limit)}`));
  byId("curves-hint").textContent = "One line per group, from blue (first) to orange (last). Hover "
    + "for the name. Dots mark the selected network"
    + (cuts.length ? `; its largest rise is ${neat(Math.max(...cuts))}.` : ".");
}
// Linear interpolation between the plotted points.
function riseAt(plot, g, removed) {
  const xs = plot.removed[g], ys = plot.rise[g], k = xs.findIndex((x) => x >= removed);
  if (k < 0) return null;
  if (xs[k] === removed || !k) return ys[k];
  return ys[k - 1] + (ys[k] - ys[k - 1]) * (removed - xs[k - 1]) / (xs[k] - xs[k - 1]);
}

// For the selected network, or for the most accurate network with gates.
function drawCourse() {
  const gated = values.points.filter((point) => point.course);
  byId("course-section").hidden = !gated.length;
  if (!gated.length) return;
  const best = gated.reduce((a, b) => b.accuracy > a.accuracy ? b : a);
  const point = chosen().course ? chosen() : best, course = point.course, last = course.steps.at(-1);
  byId("course-name").textContent = point.name;
  byId("course-moved").textContent = point.lastStep ? `In the end ${point.lastStep}.` : "";
  const frame = chart(byId("course"), { height: 260,
    x: { range: [0, last], label: "step of gate training" },
    y: { range: [0, 1.05], label: "size, share of dense", format: (v) => `${neat(100 * v)} %` },
    label: `FLOPs and parameters of ${point.name} over ${last} steps of gate training.` });
  [["FLOPs", "front", course.flops, course.target_flops],
    ["params", "target", course.params, course.target_params]].forEach(([name, kind, sizes, asked], k) => {
    const line = path(sizes.map((size, at) => [frame.px(course.steps[at]), frame.py(size)]));
    frame.svg.append(draw("path", { d: line, fill: "none", stroke: `var(--${kind})`,
      "stroke-width": 2 }), draw("text", { class: "limit-name", style: `fill: var(--${kind})`,
      x: frame.right - 110 + 60 * k, y: frame.top - 8 }, name));
    if (asked !== null) frame.svg.append(draw("line", { x1: frame.left, x2: frame.right,
      y1: frame.py(asked), y2: frame.py(asked), stroke: `var(--${kind})`,
      "stroke-dasharray": "5 4" }, draw("title", {}, `${name} target: ${percent(asked)}`)));
  });
}
