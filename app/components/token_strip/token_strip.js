// A passage as a listbox: one option a token. All text arrives as data and is set with textContent only.
//
// Streamlit calls the default export again for each change of data or theme, and its cleanup only when the
// component leaves; what must live in between is kept here, one entry a mounted strip.
const strips = new WeakMap();

// Keys held down would otherwise ask the server for each token passed on the way.
const SETTLE_MS = 90;

function element(tag, className, text) {
  const node = document.createElement(tag);
  if (className) node.className = className;
  if (text !== undefined) node.textContent = text;
  return node;
}

function number(value, digits) {
  return value === null || value === undefined ? "–" : value.toFixed(digits);
}

class Strip {
  constructor(host) {
    this.root = host.querySelector(".strip");
    this.legend = host.querySelector(".legend");
    this.passage = host.querySelector(".passage");
    this.status = host.querySelector(".status");
    this.live = host.querySelector(".live");
    this.tokens = [];
    this.selected = -1;
    this.active = -1;
    this.rev = null;
    this.passageId = null;
    this.lens = null;
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
    this.data = data;
    if (moved) this.build();
    this.paint();
    // Adopt Python's value only when Python changed its mind: a rerun caused by the last key but one
    // must not pull the cursor back.
    if (moved || data.rev !== this.rev) {
      this.rev = data.rev;
      clearTimeout(this.timer);
      this.mark(data.selected);
      this.reveal(data.selected);
    }
    this.tell(this.selected, false);
    this.root.dataset.ready = String(this.tokens.length);
  }

  build() {
    const { texts, kinds, names, sections, passage, name } = this.data;
    this.passageId = passage;
    this.selected = this.active = -1;
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

  paint() {
    const { levels, palette, absent } = this.data;
    this.tokens.forEach((token, i) => {
      const level = palette[levels[i]];
      const kind = token.dataset.kind;
      token.className = `token ${kind} ${level ? level.look : "absent"}`;
      if (level) {
        token.style.setProperty("--c", level.fill);
        token.style.setProperty("--i", level.ink ?? "inherit");
      } else {
        token.style.removeProperty("--c");
        token.style.removeProperty("--i");
      }
    });
    this.tokens[this.active]?.classList.add("active");
    this.paintLegend(absent);
    this.look();
  }

  paintLegend(absent) {
    const { legend, palette } = this.data;
    const parts = [element("span", "unit", legend.title)];
    if (legend.kind === "experts") {
      legend.items.forEach(({ level, label, count }) => {
        const button = element("button");
        button.type = "button";
        const swatch = element("span", "swatch");
        swatch.style.setProperty("--c", palette[level].fill);
        button.append(swatch, element("span", "", label), element("small", "", String(count)));
        button.setAttribute("aria-pressed", String(this.lens === level));
        button.setAttribute("aria-label", `${label}: ${count} tokens`);
        button.onclick = () => {
          this.lens = this.lens === level ? null : level;
          this.paintLegend(absent);
          this.look();
        };
        button.dataset.level = level;
        parts.push(button);
      });
    } else {
      parts.push(element("span", "", legend.low));
      const ramp = element("span", "ramp");
      palette.forEach(({ fill }) => {
        const step = element("i");
        step.style.setProperty("--c", fill);
        ramp.append(step);
      });
      ramp.setAttribute("role", "img");
      ramp.setAttribute("aria-label", `${legend.title} from ${legend.low} to ${legend.high}`);
      parts.push(ramp, element("span", "", legend.high));
    }
    if (absent) {
      const key = element("span", "key");
      key.append(element("span", "swatch absent"), element("span", "", absent));
      parts.push(key);
    }
    const focused = this.legend.getRootNode().activeElement?.dataset?.level;
    this.legend.replaceChildren(...parts);
    if (focused !== undefined) this.legend.querySelector(`button[data-level="${focused}"]`)?.focus();
  }

  look() {
    const { levels, legend } = this.data;
    if (legend.kind !== "experts") this.lens = null;
    this.root.classList.toggle("lens", this.lens !== null);
    this.tokens.forEach((token, i) => token.classList.toggle("lit", levels[i] === this.lens));
  }

  mark(i) {
    this.tokens[this.selected]?.setAttribute("aria-selected", "false");
    this.tokens[this.active]?.classList.remove("active");
    this.selected = this.tokens[i] ? i : -1;
    this.active = this.selected;
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
    const step = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: 10, ArrowUp: -10 }[event.key];
    let next;
    if (step) next = this.selected < 0 ? (step > 0 ? 0 : last) : this.selected + step;
    else if (event.key === "Home") next = 0;
    else if (event.key === "End") next = last;
    else if (event.key === "Escape" && this.selected >= 0) next = null;
    else return;
    event.preventDefault();
    this.choose(next === null ? -1 : Math.min(last, Math.max(0, next)), SETTLE_MS);
  }

  tell(i, aloud) {
    const { texts, names, experts, columns } = this.data;
    if (!this.tokens[i]) {
      this.status.replaceChildren(
        element("span", "hint", "Click a token, or focus the passage and use ← → (1), ↑ ↓ (10), Home, End; Esc clears."),
      );
      return;
    }
    const piece = names[i] ?? texts[i].trim();
    const parts = [element("span", "hint", `token ${i}`), element("span", "piece", piece)];
    if (experts[i] === null) parts.push(element("span", "", "not routed in this layer"));
    else {
      parts.push(element("span", "", experts[i]));
      columns.forEach(({ label, values, digits }) => {
        parts.push(element("span", "", `${label} ${number(values[i], digits)}`));
      });
    }
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
  strip.update(data);
  return () => {
    clearTimeout(strip.timer);
    strips.delete(parentElement);
  };
}
