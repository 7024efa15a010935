// A passage as a listbox: one option a token. All text arrives as data and is set with textContent only.
//
// Streamlit calls the default export again for each change of data or theme, and its cleanup only when the
// component leaves; what must live in between is kept here, one entry a mounted strip.
const strips = new WeakMap();

// Keys held down would otherwise ask the server for each token or layer passed on the way.
const SETTLE_MS = 120;
const NONE = 65535;
const HINT = "Click a token, or focus the passage: ← → token (Shift: ten), ↑ ↓ layer, Home, End, Enter next find, Esc clears.";

class Strip {
  constructor(host) {
    for (const part of ["strip", "layers", "legend", "passage", "status", "live", "looks"]) {
      this[part] = host.querySelector(`.${part}`);
    }
    this.tokens = [];
    this.selected = -1;
    this.at = 0;
    this.rev = this.layerRev = this.passageId = this.sent = this.lens = null;
    this.passage.onclick = (event) => this.choose(this.indexOf(event.target), 0);
    this.passage.onmouseover = (event) => {
      const i = this.indexOf(event.target);
      this.tell(i < 0 ? this.selected : i, false);
    };
    this.passage.onmouseleave = () => this.tell(this.selected, false);
    this.passage.onkeydown = (event) => this.key(event);
  }

  indexOf(node) {
    const token = node.closest?.(".token");
    return token ? Number(token.dataset.i) : -1;
  }

  update(data) {
    const moved = data.passage !== this.passageId;
    if (data !== this.sent) this.read(data);
    if (moved) this.build();
    // Adopt Python's value only when Python changed its mind: a rerun caused by the last key but one
    // must not pull the cursor back.
    if (moved || data.layer_rev !== this.layerRev || this.at >= data.layers.length) {
      this.layerRev = data.layer_rev;
      clearTimeout(this.layerTimer);
      this.at = data.layer;
      this.lens = null;
    }
    this.paint();
    if (moved || data.rev !== this.rev) {
      this.rev = data.rev;
      clearTimeout(this.timer);
      this.mark(data.selected);
      this.reveal(data.selected);
    }
    this.tell(this.selected, false);
    this.strip.dataset.ready = String(this.tokens.length);
  }

  read(data) {
    this.data = this.sent = data;
    this.levels = unpacked(data.levels);
    this.experts = unpacked(data.experts);
    this.columns = data.columns.map((column) => ({ ...column, codes: unpacked(column.codes) }));
    this.marked = new Set(data.marks?.tokens ?? []);
  }

  build() {
    const { texts, kinds, names, sections, passage, name } = this.data;
    this.passageId = passage;
    this.selected = -1;
    this.lens = null;
    this.tokens = [];
    const all = document.createDocumentFragment();
    sections.forEach(({ start, stop, label }) => {
      const section = element("div", "section");
      section.setAttribute("role", "group");
      section.setAttribute("aria-label", label);
      if (sections.length > 1) {
        const heading = element("span", "label", label);
        heading.setAttribute("aria-hidden", "true");
        section.append(heading);
      }
      for (let i = start; i < stop; i += 1) {
        const token = element("span", "token", texts[i]);
        token.id = `t${i}`;
        token.dataset.i = i;
        token.dataset.kind = kinds[i] ?? "";
        token.setAttribute("role", "option");
        token.setAttribute("aria-selected", "false");
        if (names[i]) token.setAttribute("aria-label", names[i]);
        this.tokens[i] = token;
        section.append(token);
      }
      all.append(section);
    });
    this.passage.replaceChildren(all);
    this.passage.setAttribute("aria-label", name);
    this.passage.scrollTop = 0;
  }

  // Where a table of one row, or one of a row a layer, holds the token's number.
  place(table, i) {
    return table.length > this.tokens.length ? this.at * this.tokens.length + i : i;
  }

  paint() {
    // A long passage takes tens of milliseconds to recolor: what can be seen comes first, the rest once keys rest.
    const [first, last] = this.seen();
    this.paintTokens(first, last);
    clearTimeout(this.restTimer);
    const rest = () => {
      this.paintTokens(0, first);
      this.paintTokens(last, this.tokens.length);
    };
    if (last - first < this.tokens.length) this.restTimer = setTimeout(rest, SETTLE_MS);
    this.paintLayers();
    this.paintLegend();
    this.look();
  }

  paintTokens(start, stop) {
    const { palette } = this.data;
    for (let i = start; i < stop; i += 1) {
      const token = this.tokens[i];
      const level = this.levels[this.place(this.levels, i)];
      const look = level === NONE ? "absent" : `${palette[level].look} l${level}`;
      const name = `token ${token.dataset.kind} ${look}${this.marked.has(i) ? " found" : ""}`;
      if (token.className !== name) token.className = name;
    }
  }

  // The tokens on the screen, and some around them.
  seen() {
    const n = this.tokens.length;
    const view = this.passage.getBoundingClientRect();
    if (n < 600 || !view.height) return [0, n];
    const firstBelow = (y) => {
      let [low, high] = [0, n];
      while (low < high) {
        const middle = (low + high) >> 1;
        if (this.tokens[middle].getBoundingClientRect().bottom < y) low = middle + 1;
        else high = middle;
      }
      return low;
    };
    return [Math.max(0, firstBelow(view.top) - 80), Math.min(n, firstBelow(view.bottom) + 120)];
  }

  paintLayers() {
    const { layers } = this.data;
    this.layers.hidden = layers.length < 2;
    if (this.scrubbed !== layers.join()) {
      this.scrubbed = layers.join();
      this.scrubber = scrubber(layers, (at) => this.go(at));
      this.layers.replaceChildren(...this.scrubber.parts);
    }
    this.scrubber.show(this.at);
  }

  go(layer) {
    const at = Math.min(this.data.layers.length - 1, Math.max(0, layer));
    if (at === this.at) return;
    this.at = at;
    this.lens = null;
    this.paint();
    this.tell(this.selected, false);
    this.live.textContent = `layer ${this.data.layers[at]}`;
    clearTimeout(this.layerTimer);
    this.layerTimer = setTimeout(() => this.sendLayer(at), SETTLE_MS);
  }

  legendOf() {
    const { legends } = this.data;
    return legends[legends.length > 1 ? this.at : 0];
  }

  paintLegend() {
    const pressed = (level) => {
      this.lens = this.lens === level ? null : level;
      this.paintLegend();
      this.look();
    };
    const { palette, marks, absent } = this.data;
    const row = this.levels.length > this.tokens.length ? this.at * this.tokens.length : 0;
    const lacks = this.levels.subarray(row, row + this.tokens.length).includes(NONE);
    const parts = legendParts(this.legendOf(), { palette, lens: this.lens, pressed, absent: lacks && absent });
    if (marks) parts.push(finds(marks, (step) => this.find(step)));
    const focused = this.legend.getRootNode().activeElement?.dataset?.level;
    this.legend.replaceChildren(...parts);
    if (focused !== undefined) this.legend.querySelector(`button[data-level="${focused}"]`)?.focus();
  }

  look() {
    const looks = this.data.palette.map(({ fill, ink }, level) => `.l${level}{--c:${fill};--i:${ink ?? "inherit"}}`);
    if (this.lens !== null) looks.push(`.token:not(.l${this.lens}):not([aria-selected="true"]){opacity:0.35}`);
    // Written anew, even the same rules would have every token styled again.
    const rules = looks.join("\n");
    if (this.looks.textContent !== rules) this.looks.textContent = rules;
  }

  find(step) {
    const places = this.data.marks?.tokens ?? [];
    if (!places.length) return;
    const from = this.selected;
    const next = step > 0 ? places.find((i) => i > from) ?? places[0] : places.findLast((i) => i < from) ?? places.at(-1);
    this.choose(next, SETTLE_MS);
  }

  mark(i) {
    this.tokens[this.selected]?.setAttribute("aria-selected", "false");
    this.selected = this.tokens[i] ? i : -1;
    if (this.selected < 0) {
      this.passage.removeAttribute("aria-activedescendant");
      return;
    }
    this.tokens[i].setAttribute("aria-selected", "true");
    this.passage.setAttribute("aria-activedescendant", `t${i}`);
  }

  reveal(i) {
    const token = this.tokens[i];
    if (!token) return;
    // scrollIntoView would also move the page.
    const view = this.passage.getBoundingClientRect();
    const box = token.getBoundingClientRect();
    if (box.top < view.top + 8) this.passage.scrollTop += box.top - view.top - 24;
    else if (box.bottom > view.bottom - 8) this.passage.scrollTop += box.bottom - view.bottom + 24;
  }

  choose(i, wait) {
    if (i === this.selected || (i >= 0 && !this.tokens[i])) return;
    this.mark(i);
    this.reveal(i);
    this.tell(i, true);
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.send(i), wait);
  }

  key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const last = this.tokens.length - 1;
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key] * (event.shiftKey ? 10 : 1);
    const layer = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    let next;
    if (layer) this.go(this.at + layer);
    else if (event.key === "Enter") this.find(event.shiftKey ? -1 : 1);
    else if (step) next = this.selected < 0 ? (step > 0 ? 0 : last) : this.selected + step;
    else if (event.key === "Home") next = 0;
    else if (event.key === "End") next = last;
    else if (event.key === "Escape" && this.selected >= 0) next = null;
    else return;
    event.preventDefault();
    if (next !== undefined) this.choose(next === null ? -1 : Math.min(last, Math.max(0, next)), SETTLE_MS);
  }

  expertOf(i) {
    const expert = this.experts[this.place(this.experts, i)];
    if (expert === NONE) return null;
    const layer = this.data.layers[this.at];
    return `${layer}·${this.data.expert_names[layer]?.[expert] ?? `E${expert}`}`;
  }

  tell(i, aloud) {
    const { texts, names } = this.data;
    if (!this.tokens[i]) {
      this.status.replaceChildren(element("span", "hint", HINT));
      return;
    }
    const expert = this.expertOf(i);
    const parts = [element("span", "hint", `token ${i}`), element("span", "piece", names[i] ?? texts[i].trim())];
    parts.push(element("span", "", expert ?? "not routed in this layer"));
    this.columns.forEach(({ label, codes, low, step, digits }) => {
      const code = codes[this.place(codes, i)];
      if (code !== NONE) parts.push(element("span", "", `${label} ${(low + code * step).toFixed(digits)}`));
    });
    this.status.replaceChildren(...parts);
    if (aloud) this.live.textContent = parts.map((part) => part.textContent).join(", ");
  }
}

export default function tokenStrip({ data, parentElement, setTriggerValue }) {
  let strip = strips.get(parentElement);
  if (!strip) {
    strip = new Strip(parentElement);
    strips.set(parentElement, strip);
  }
  strip.send = (i) => setTriggerValue("choose", i);
  strip.sendLayer = (at) => setTriggerValue("layer", at);
  strip.update(data);
  return () => {
    clearTimeout(strip.timer);
    clearTimeout(strip.layerTimer);
    clearTimeout(strip.restTimer);
    strips.delete(parentElement);
  };
}
