"use strict";
// DOM elements, number formats and two-axis charts. Text is always set as text, never as markup.

const SVG = "http://www.w3.org/2000/svg";

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes || {})) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value !== null && value !== undefined && value !== false)
      node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}
function el(tag, attributes, ...children) {
  return fill(document.createElement(tag), attributes, children);
}
function draw(tag, attributes, ...children) {
  return fill(document.createElementNS(SVG, tag), attributes, children);
}
const byId = (id) => document.getElementById(id);
function put(id, ...children) { byId(id).replaceChildren(...children); }

const accuracy = (value) => value === null ? "–" : value.toFixed(4);
const percent = (value) => `${(100 * value).toFixed(1)} %`;
const points = (value) => `${value < 0 ? "−" : "+"}${Math.abs(100 * value).toFixed(2)} points`;
const milliseconds = (value) => value === null ? "–" : `${value.toPrecision(3)} ms`;
function amount(value) {
  for (const [size, unit] of [[1e9, " G"], [1e6, " M"], [1e3, " k"]])
    if (value >= size) return (value / size).toPrecision(3) + unit;
  return String(value);
}
const neat = (value) => String(Number(value.toPrecision(4)));

// About `count` round numbers from low to high.
function ticks(low, high, count) {
  const rough = (high - low) / count, power = 10 ** Math.floor(Math.log10(rough));
  const step = power * [1, 2, 2.5, 5, 10].find((factor) => factor * power >= rough * 0.999);
  const found = [];
  for (let k = Math.ceil(low / step - 1e-9); k * step <= high + step * 1e-9; k++)
    found.push(Number((k * step).toPrecision(12)));
  return found;
}
function powers(low, high) {
  const found = [];
  for (let k = Math.ceil(Math.log10(low)); 10 ** k <= high * 1.0001; k++) found.push(10 ** k);
  return found;
}
function span(numbers, air = 0.08) {
  const low = Math.min(...numbers), high = Math.max(...numbers);
  const more = air * (high - low) || Math.abs(air * high) || 0.05;
  return [low - more, high + more];
}

// Drop values far below the others (Tukey's outer fence), which would squash the axis.
function notCollapsed(numbers) {
  const ordered = [...numbers].sort((a, b) => a - b);
  const at = (share) => ordered[Math.round(share * (ordered.length - 1))];
  return ordered.filter((value) => value >= at(0.25) - 3 * (at(0.75) - at(0.25)));
}

const SHAPES = {
  circle: (r) => `M${-r},0a${r},${r} 0 1 0 ${2 * r},0a${r},${r} 0 1 0 ${-2 * r},0z`,
  square: (r) => `M${-r},${-r}h${2 * r}v${2 * r}h${-2 * r}z`,
  down: (r) => `M${-r},${-0.7 * r}h${2 * r}l${-r},${1.7 * r}z`,
  cross: (r) => {
    const a = 0.3 * r;
    const corners = [[-a, -r], [a, -r], [a, -a], [r, -a], [r, a], [a, a]];
    return path(corners.concat(corners.map(([x, y]) => [-x, -y]))
      .map(([x, y]) => [(x - y) * Math.SQRT1_2, (x + y) * Math.SQRT1_2])) + "z";
  },
  star: (r) => path(Array.from({ length: 10 }, (_, k) => {
    const angle = k * Math.PI / 5, radius = k % 2 ? 0.42 * r : r;
    return [radius * Math.sin(angle), -radius * Math.cos(angle)];
  })) + "z",
};
function path(corners) {
  return corners.map(([x, y], k) => `${k ? "L" : "M"}${x.toFixed(1)},${y.toFixed(1)}`).join("");
}

// An empty chart in `box`; x and y are {range, label, format, ticks, log}. Returns the pixel mapping.
function chart(box, { x, y, label, height, interactive }) {
  const width = Math.max(box.clientWidth, 240);
  const tall = height || Math.round(Math.min(430, Math.max(270, width * 0.6)));
  const left = 52, right = 14, top = 26, bottom = 40;
  const along = (axis, value) => axis.log
    ? Math.log(value / axis.range[0]) / Math.log(axis.range[1] / axis.range[0])
    : (value - axis.range[0]) / (axis.range[1] - axis.range[0]);
  const px = (value) => left + along(x, value) * (width - left - right);
  const py = (value) => tall - bottom - along(y, value) * (tall - top - bottom);
  const svg = draw("svg", { viewBox: `0 0 ${width} ${tall}`, width, height: tall,
    role: interactive ? "group" : "img", "aria-label": label });
  for (const value of y.ticks || (y.log ? powers(...y.range) : ticks(...y.range, 6)))
    svg.append(draw("line", { class: "rule", x1: left, x2: width - right, y1: py(value),
      y2: py(value) }), draw("text", { x: left - 7, y: py(value) + 4, "text-anchor": "end" },
      (y.format || neat)(value)));
  for (const value of x.ticks || ticks(...x.range, width < 480 ? 4 : 8))
    svg.append(draw("line", { class: "rule", x1: px(value), x2: px(value), y1: top,
      y2: tall - bottom }), draw("text", { x: px(value), y: tall - bottom + 17,
      "text-anchor": "middle" }, (x.format || neat)(value)));
  svg.append(draw("text", { x: (left + width - right) / 2, y: tall - 5, "text-anchor": "middle" },
    x.label), draw("text", { x: 4, y: 13 }, y.label));
  box.replaceChildren(svg);
  return { svg, px, py, top, left, right: width - right, bottom: tall - bottom, width };
}
