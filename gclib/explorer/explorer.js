// Attention explorer. Runs in a notebook (anywidget) and in a page of its own; needs no network.
// model: get("about"), get("arrays"), get("choices"), set("wanted", ...), on("change:arrays", ...)

const CIVIDIS = [
  [0, 34, 78], [18, 53, 112], [59, 73, 108], [87, 93, 109], [112, 113, 115],
  [138, 134, 120], [165, 156, 116], [195, 179, 105], [225, 204, 85], [254, 232, 56],
];
const SIDE = 176; // of a map, in CSS pixels; less on a narrow page
const NAMES = {
  gaussian: "Gaussian",
  embedded_gaussian: "embedded Gaussian",
  dot_product: "dot product",
  concat: "concat",
};
const MEASURES = ["cosine, input", "cosine, output", "cosine, attention", "JSD, attention"]; // table 1

function colour(share) {
  const place = Math.min(Math.max(share, 0), 1) * (CIVIDIS.length - 1);
  const low = Math.min(Math.floor(place), CIVIDIS.length - 2);
  return CIVIDIS[low].map((v, k) => Math.round(v + (place - low) * (CIVIDIS[low + 1][k] - v)));
}

// Average of (1 - cos)/2 over all pairs of rows, as gclib.analysis.distances has it; null for zeros.
function cosineDistance(rows) {
  const mean = new Float64Array(rows[0].length);
  let empty = 0;
  const units = rows.map(row => {
    let square = 0;
    for (const v of row) square += v * v;
    const length = Math.sqrt(square);
    if (length === 0) empty += 1;
    return Float64Array.from(row, v => (length === 0 ? 0 : v / length));
  });
  if (empty === rows.length) return null; // what an untrained block adds
  for (const unit of units) for (let k = 0; k < mean.length; k++) mean[k] += unit[k] / rows.length;
  let spread = 0;
  for (const unit of units) {
    for (let k = 0; k < mean.length; k++) spread += (unit[k] - mean[k]) ** 2;
  }
  const share = empty / rows.length;
  return spread / (2 * rows.length) + share / 2 - (share * share) / 2;
}

// Average Jensen-Shannon divergence over all pairs of rows; null where they are no distributions.
function jsd(rows) {
  for (const row of rows) {
    let sum = 0;
    for (const v of row) {
      if (v < 0) return null;
      sum += v;
    }
    if (Math.abs(sum - 1) > 1e-4) return null;
  }
  const entropy = value => (value > 0 ? value * Math.log(value) : 0);
  const own = rows.map(row => row.reduce((sum, v) => sum + entropy(v), 0));
  let total = 0;
  for (let i = 0; i < rows.length; i++) {
    for (let j = 0; j < i; j++) {
      let both = 0;
      for (let k = 0; k < rows[i].length; k++) both += entropy((rows[i][k] + rows[j][k]) / 2);
      total += (own[i] + own[j]) / 2 - both;
    }
  }
  return (2 * total) / rows.length ** 2;
}

function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name in element && typeof value !== "string") element[name] = value;
    else element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

let count = 0; // of explorers on this page, for unique ids

function render({ model, el }) {
  const id = `gclib-explorer-${++count}`;
  let about, data, step, query, chosen, cached;

  function load() {
    about = model.get("about");
    const view = model.get("arrays"); // a DataView
    const numbers = new Float32Array(view.byteLength / 4);
    for (let k = 0; k < numbers.length; k++) numbers[k] = view.getFloat32(4 * k, true);
    const positions = about.size ** 2;
    const many = about.blocks.length * about.steps.length * positions;
    const ends = [0, many * about.channels, 2 * many * about.channels];
    const widths = [about.channels, about.channels, positions];
    const [input, output, attention] = widths.map((width, k) => (block, at, place) => {
      const row = (block * about.steps.length + at) * positions + place;
      return numbers.subarray(ends[k] + row * width, ends[k] + (row + 1) * width);
    });
    data = { input, output, attention, positions };
    cached = new Map();
    step = step === undefined ? about.steps.length - 1 : Math.min(step, about.steps.length - 1);
    query = about.objects[0][0] * about.size + about.objects[0][1];
    chosen = objects();
  }
  const objects = () => new Set(about.objects.map(([row, column]) => row * about.size + column));
  const named = place => `row ${Math.floor(place / about.size)}, column ${place % about.size}`;

  // -- parts of the page

  const root = make("section", { class: "gclib-explorer", "aria-label": "Attention explorer" });
  const task = make("select", { id: `${id}-task` });
  const scene = make("select", { id: `${id}-scene` });
  const slider = make("input", { type: "range", min: "0", id: `${id}-step` });
  const told = make("output", { for: `${id}-step` });
  const play = make("button", { type: "button" }, "Play");
  const picture = make("canvas", { tabindex: "0", role: "application" });
  const maps = make("div", { class: "maps" });
  const said = make("p", { class: "said", role: "status", "aria-live": "polite" });
  const table = make("table");
  const toggle = make("button", { type: "button" }, "");
  const reset = make("button", { type: "button" }, "Choose the objects");
  root.append(
    make(
      "div",
      { class: "bar" },
      make("label", { for: `${id}-task` }, "Task "), task,
      make("label", { for: `${id}-scene` }, "Scene "), scene,
      make("label", { for: `${id}-step` }, "Updates "), slider, told, play,
    ),
    make(
      "div",
      { class: "panels" },
      make("figure", {}, picture, make("figcaption", {}, "the scene; click a position")),
      maps,
    ),
    said,
    make("div", { class: "bar" }, toggle, reset),
    make("div", { class: "table" }, table),
    make(
      "p",
      { class: "help" },
      "Click a position, or move with the arrow keys. Enter chooses it for the distances, as does " +
      "a click with Shift. The output is what a block adds: nothing before training. Each map has its own colour scale, from its smallest to its largest value.",
    ),
  );
  el.append(root);

  // -- drawing

  const small = document.createElement("canvas"); // a pixel of the scene is a pixel of it

  function prepare(canvas) {
    const ratio = window.devicePixelRatio || 1;
    canvas.width = canvas.height = Math.round(SIDE * ratio);
    const context = canvas.getContext("2d");
    context.imageSmoothingEnabled = false;
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    return context;
  }

  // The scene, or a map over the scene in grey; gives the map's smallest and largest value.
  function paint(context, map) {
    const pixels = about.pixels, size = about.size;
    const bits = new ImageData(pixels, pixels);
    let low = Infinity, high = -Infinity;
    if (map) for (const v of map) { low = Math.min(low, v); high = Math.max(high, v); }
    const heat = map && Array.from(map, v => colour(high > low ? (v - low) / (high - low) : 0.5));
    for (let k = 0; k < pixels * pixels; k++) {
      const red = about.image[3 * k], green = about.image[3 * k + 1], blue = about.image[3 * k + 2];
      let shown = [red, green, blue];
      if (map) {
        const row = Math.floor((Math.floor(k / pixels) * size) / pixels);
        const over = heat[row * size + Math.floor(((k % pixels) * size) / pixels)];
        const light = (red + green + blue) / 12; // a quarter of the mean
        shown = [0.75 * over[0] + light, 0.75 * over[1] + light, 0.75 * over[2] + light];
      }
      bits.data[4 * k] = shown[0];
      bits.data[4 * k + 1] = shown[1];
      bits.data[4 * k + 2] = shown[2];
      bits.data[4 * k + 3] = 255;
    }
    small.width = small.height = pixels;
    small.getContext("2d").putImageData(bits, 0, 0);
    context.drawImage(small, 0, 0, SIDE, SIDE);
    return [low, high];
  }

  function mark(context, place, kind) {
    const cell = SIDE / about.size;
    const x = (place % about.size) * cell, y = Math.floor(place / about.size) * cell;
    if (kind === "query") {
      for (const [ink, width] of [["#ffffff", 5], ["#D55E00", 2.5]]) {
        context.strokeStyle = ink;
        context.lineWidth = width;
        context.strokeRect(x + 2, y + 2, cell - 4, cell - 4);
      }
    } else {
      context.fillStyle = "#ffffff";
      context.strokeStyle = "#000000";
      context.lineWidth = 1;
      context.beginPath();
      context.arc(x + cell / 2, y + cell / 2, 3, 0, 2 * Math.PI);
      context.fill();
      context.stroke();
    }
  }

  function distances(block, places, key) {
    const name = `${block}/${step}/${key}`;
    if (!cached.has(name)) {
      const rows = kind => places.map(place => data[kind](block, step, place));
      const attention = rows("attention");
      cached.set(name, [
        cosineDistance(rows("input")), cosineDistance(rows("output")),
        cosineDistance(attention), jsd(attention),
      ]);
    }
    return cached.get(name);
  }

  const number = value =>
    value === null ? "–" : value < 5e-7 ? "0" : value < 1e-3 ? value.toExponential(1) : value.toFixed(3);

  function draw() {
    const start = performance.now();
    slider.max = String(about.steps.length - 1);
    slider.value = String(step);
    const updates = about.steps[step];
    told.textContent = step === 0 ? "0 (untrained)" : String(updates);
    slider.setAttribute("aria-valuetext", `${updates} updates`);
    const context = prepare(picture);
    paint(context, null);
    for (const place of chosen) mark(context, place, "chosen");
    mark(context, query, "query");
    picture.setAttribute("aria-label", `Scene ${about.scene}; query at ${named(query)}`);
    const words = [];
    about.blocks.forEach((block, k) => {
      const { canvas, caption } = panels[k];
      const map = data.attention(k, step, query);
      const ink = prepare(canvas);
      const [low, high] = paint(ink, map);
      mark(ink, query, "query");
      const most = map.indexOf(high);
      const where = `most at ${named(most)}: ${high.toPrecision(2)}`;
      caption.replaceChildren(
        make("strong", {}, NAMES[block] ?? block), make("br"),
        `${low.toPrecision(2)} to ${high.toPrecision(2)}`,
      );
      canvas.setAttribute("aria-label", `${NAMES[block] ?? block}, ${where}`);
      words.push(`${NAMES[block] ?? block} ${where}`);
    });
    said.textContent = `Query at ${named(query)} after ${updates} updates. ${words.join("; ")}.`;
    toggle.textContent = chosen.has(query) ? "Leave this position out" : "Choose this position";
    const all = [...Array(data.positions).keys()], some = [...chosen].sort((a, b) => a - b);
    const head = make("thead", {}, make(
      "tr", {}, ...["Block", "Pairs of positions", ...MEASURES, "Right labels, trained"].map(
        text => make("th", { scope: "col" }, text)),
    ));
    const body = make("tbody");
    about.blocks.forEach((block, k) => {
      const name = make("th", { scope: "rowgroup", rowSpan: 2 }, NAMES[block] ?? block);
      const right = make("td", { rowSpan: 2 }, `${(100 * about.accuracy[k]).toFixed(0)} %`);
      const cells = (label, values) => [
        make("th", { scope: "row" }, label),
        ...MEASURES.map((_, at) => make("td", {}, values ? number(values[at]) : "–")),
      ];
      body.append(
        make("tr", {}, name, ...cells("all", distances(k, all, "all")), right),
        make("tr", {}, ...cells(
          `the ${some.length} chosen`, some.length ? distances(k, some, some.join()) : null)),
      );
    });
    table.replaceChildren(head, body);
    root.dataset.milliseconds = (performance.now() - start).toFixed(1);
    root.dataset.query = String(query);
    root.dataset.step = String(step);
  }

  // -- what the reader does

  function at(event) {
    const box = event.currentTarget.getBoundingClientRect();
    const cell = part => Math.min(Math.max(Math.floor(part * about.size), 0), about.size - 1);
    return cell((event.clientY - box.top) / box.height) * about.size +
      cell((event.clientX - box.left) / box.width);
  }
  function choose(place) {
    if (!chosen.delete(place)) chosen.add(place);
  }
  function clicked(event) {
    query = at(event);
    if (event.shiftKey) choose(query);
    draw();
  }
  const panels = [];
  function build() {
    maps.replaceChildren();
    panels.length = 0;
    for (const _ of about.blocks) {
      const canvas = make("canvas", { role: "img" });
      const caption = make("figcaption");
      canvas.addEventListener("click", clicked);
      panels.push({ canvas, caption });
      maps.append(make("figure", {}, canvas, caption));
    }
    const choices = model.get("choices");
    const options = (values, current, label) => values.map(value => {
      const option = make("option", { value: String(value) }, label(value));
      option.selected = value === current;
      return option;
    });
    task.replaceChildren(...options(Object.keys(choices), about.task, value => value));
    scene.replaceChildren(...options(choices[about.task], about.scene, value => `${value}`));
  }
  picture.addEventListener("click", clicked);
  picture.addEventListener("keydown", event => {
    const size = about.size, row = Math.floor(query / size), column = query % size;
    const moves = {
      ArrowUp: [Math.max(row - 1, 0), column], ArrowDown: [Math.min(row + 1, size - 1), column],
      ArrowLeft: [row, Math.max(column - 1, 0)], ArrowRight: [row, Math.min(column + 1, size - 1)],
    };
    if (event.key in moves) query = moves[event.key][0] * size + moves[event.key][1];
    else if (event.key === "Enter" || event.key === " ") choose(query);
    else return;
    event.preventDefault();
    event.stopPropagation(); // JupyterLab would move to another cell
    draw();
  });
  slider.addEventListener("input", () => { step = Number(slider.value); draw(); });
  slider.addEventListener("keydown", event => event.stopPropagation());
  toggle.addEventListener("click", () => { choose(query); draw(); });
  reset.addEventListener("click", () => { chosen = objects(); draw(); });
  let timer = null;
  function stop() {
    clearInterval(timer);
    timer = null;
    play.textContent = "Play";
  }
  play.addEventListener("click", () => {
    if (timer) return stop();
    if (step === about.steps.length - 1) step = 0;
    draw();
    play.textContent = "Stop";
    timer = setInterval(() => {
      if (step === about.steps.length - 1) return stop();
      step += 1;
      draw();
    }, 900);
  });
  function ask() {
    const known = model.get("choices")[task.value];
    const wanted = { task: task.value, scene: Number(scene.value) };
    if (!known.includes(wanted.scene)) wanted.scene = known[0];
    model.set("wanted", wanted);
    model.save_changes();
  }
  task.addEventListener("change", ask);
  scene.addEventListener("change", ask);
  const arrived = () => { load(); build(); draw(); };
  model.on("change:arrays", arrived);
  arrived();
  return () => { stop(); model.off("change:arrays", arrived); };
}

export default { render };
