// What stands above a passage: its layers, the key to its colors, and what a search found. Put before token_strip.js, which uses it.

function element(tag, className, text) {
  const node = document.createElement(tag);
  if (className) node.className = className;
  if (text !== undefined) node.textContent = text;
  return node;
}

function button(label, className, onclick) {
  const node = element("button", className, label);
  node.type = "button";
  node.onclick = onclick;
  return node;
}

function unpacked(text) {
  const bytes = Uint8Array.from(atob(text), (each) => each.charCodeAt(0));
  return new Uint16Array(bytes.buffer);
}

function hueKey({ level, label, count }, { lens, pressed }) {
  const node = button(undefined, `l${level}`, () => pressed(level));
  node.append(element("span", "swatch"), element("span", "", label), element("small", "", String(count)));
  node.setAttribute("aria-pressed", String(lens === level));
  node.setAttribute("aria-label", `${label}: ${count} tokens`);
  node.dataset.level = level;
  return node;
}

function legendParts(legend, { palette, lens, pressed, absent }) {
  const parts = [element("span", "unit", legend.title)];
  if (legend.kind === "hues") {
    parts.push(...legend.items.map((item) => hueKey(item, { lens, pressed })));
  } else {
    const ramp = element("span", "ramp");
    palette.forEach((_, level) => ramp.append(element("i", `l${level}`)));
    ramp.setAttribute("role", "img");
    ramp.setAttribute("aria-label", `${legend.title} from ${legend.low} to ${legend.high}`);
    parts.push(element("span", "", legend.low), ramp, element("span", "", legend.high));
  }
  if (absent) {
    const key = element("span", "key");
    key.append(element("span", "swatch absent"), element("span", "", absent));
    parts.push(key);
  }
  return parts;
}

function finds(marks, go) {
  const found = element("span", "finds");
  found.append(element("span", "", `${marks.tokens.length} × ${marks.what}`));
  [["‹", "Previous find", -1], ["›", "Next find", 1]].forEach(([sign, label, step]) => {
    const node = button(sign, "step", () => go(step));
    node.setAttribute("aria-label", label);
    node.disabled = !marks.tokens.length;
    found.append(node);
  });
  return found;
}

function scrubber(layers, go) {
  const range = element("input");
  Object.assign(range, { type: "range", min: 0, max: layers.length - 1, step: 1 });
  range.setAttribute("aria-label", "Layer");
  range.oninput = () => go(Number(range.value));
  const label = element("output", "layer");
  const [first, last] = [layers[0], layers[layers.length - 1]].map((each) => element("span", "end", each));
  const show = (at) => {
    range.value = at;
    range.setAttribute("aria-valuetext", layers[at]);
    label.textContent = layers[at];
  };
  return { parts: [element("span", "unit", "Layer"), label, first, range, last], show };
}
