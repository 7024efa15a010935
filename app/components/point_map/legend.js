// The legend of a map: one button for each group, which hides or shows it, and what is hidden under each coloring.

// A double click comes as two clicks before it; what the legend shows after them counts.
const HIDE_MS = 350;

class Legend {
  // `changed` is called whenever other groups are shown, `told` with the coloring and its hidden names once the reader chose.
  constructor(host, { changed, told }) {
    this.host = host;
    this.changed = changed;
    this.told = told;
    // Which colors are drawn; nothing is before the legend is.
    this.shown = null;
  }

  // Names that the page leaves out of a coloring.
  adopt(shared, title, names) {
    clearTimeout(this.hiding);
    shared.hidden.set(title, new Set(names));
    if (this.title === title) this.mark();
  }

  draw(shared) {
    const { title, entries, colors } = shared.kinds;
    this.title = title;
    this.entries = entries;
    this.hiddenOf = shared.hidden;
    const head = document.createElement("div");
    head.className = "title";
    head.textContent = title;
    const all = entries.map(({ name }) => name);
    this.buttons = entries.map((entry) => this.button(entry, colors[entry.from], all));
    this.host.replaceChildren(head, ...this.buttons);
    this.mark();
  }

  button({ name, count }, [r, g, b], all) {
    const button = document.createElement("button");
    button.type = "button";
    button.title = "Click to hide or show; double click, or Shift and Enter, to show it alone";
    const swatch = document.createElement("span");
    swatch.className = "swatch";
    swatch.style.background = `rgb(${r} ${g} ${b})`;
    const label = document.createElement("span");
    label.className = "label";
    label.textContent = name;
    const number = document.createElement("span");
    number.className = "number";
    number.textContent = count.toLocaleString("en");
    button.append(swatch, label, number);
    button.onclick = () => this.hide(all.filter((each) => this.hidden().has(each) !== (each === name)));
    const alone = () => {
      const hidden = this.hidden();
      const isAlone = all.every((each) => hidden.has(each) === (each !== name));
      this.hide(isAlone ? [] : all.filter((each) => each !== name));
    };
    button.ondblclick = alone;
    // Keys know no double click.
    button.onkeydown = (event) => {
      if (event.key !== "Enter" || !event.shiftKey) return;
      event.preventDefault();
      alone();
    };
    return button;
  }

  hidden() {
    const { hiddenOf, title } = this;
    if (!hiddenOf.has(title)) hiddenOf.set(title, new Set());
    return hiddenOf.get(title);
  }

  hide(names) {
    const { title } = this;
    this.hiddenOf.set(title, new Set(names));
    this.mark();
    clearTimeout(this.hiding);
    this.hiding = setTimeout(() => this.told({ title, names }), HIDE_MS);
  }

  mark() {
    const hidden = this.hidden();
    this.shown = new Uint8Array(256).fill(1);
    this.entries.forEach(({ name, from, to }, number) => {
      const off = hidden.has(name);
      if (off) this.shown.fill(0, from, to);
      this.buttons[number].classList.toggle("off", off);
      this.buttons[number].setAttribute("aria-pressed", String(!off));
    });
    this.changed();
  }

  // First and last color of each group that is left out.
  off() {
    return this.entries.filter(({ name }) => this.hidden().has(name)).map(({ from, to }) => [from, to]);
  }

  stop() {
    clearTimeout(this.hiding);
  }
}
