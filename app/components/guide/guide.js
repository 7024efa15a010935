// The tour and the list of keys. Both lie in the browser's top layer, so the page beneath keeps its layout, and the tour
// is no modal: whoever does not want it goes on working beside it.

const PLACE = "routescope.tour";
const FRAME = "2px solid";

function seen() {
  try {
    return localStorage.getItem(PLACE) !== null;
  } catch {
    // A browser that keeps nothing would show it at every page.
    return true;
  }
}

function see() {
  try {
    localStorage.setItem(PLACE, "seen");
  } catch {
    // Nothing to keep it in.
  }
}

function filled(list, tag, texts) {
  list.replaceChildren(
    ...texts.map((text) => {
      const node = document.createElement(tag);
      node.textContent = text;
      return node;
    }),
  );
}

class Tour {
  constructor(root, steps) {
    const part = (name) => root.querySelector(name);
    Object.assign(this, { steps, at: 0, framed: null });
    [this.card, this.title, this.count, this.text, this.points, this.back, this.next] = [
      ".tour", "#tour-title", ".count", ".text", ".tour ul", ".back", ".next",
    ].map(part);
    this.back.onclick = () => this.show(this.at - 1);
    this.next.onclick = () => (this.at + 1 < this.steps.length ? this.show(this.at + 1) : this.close());
    part(".close").onclick = () => this.close();
    this.card.onkeydown = (event) => {
      const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      if (event.key === "Escape") this.close();
      else if (step && this.steps[this.at + step]) this.show(this.at + step);
      else return;
      event.preventDefault();
      event.stopPropagation();
    };
  }

  open(from) {
    this.from = from;
    if (!this.card.matches(":popover-open")) this.card.showPopover();
    this.show(0);
    // Who asked for it reads it next; who did not keeps their place.
    if (from) this.card.focus();
  }

  show(at) {
    const step = this.steps[at];
    this.at = at;
    this.title.textContent = step.title;
    this.count.textContent = `Tour, step ${at + 1} of ${this.steps.length}`;
    this.text.textContent = step.text;
    filled(this.points, "li", step.points);
    this.back.disabled = at === 0;
    this.next.textContent = at + 1 < this.steps.length ? "Next" : "Done";
    this.frame(step.shows && document.querySelector(step.shows));
  }

  frame(element) {
    if (this.framed) this.framed.style.outline = "";
    this.framed = element || null;
    const color = getComputedStyle(this.card).getPropertyValue("--st-primary-color");
    if (this.framed) this.framed.style.outline = `${FRAME} ${color}`;
  }

  close() {
    see();
    this.frame(null);
    if (this.card.matches(":popover-open")) this.card.hidePopover();
    this.from?.focus();
  }
}

export default function guide({ data, parentElement }) {
  const root = parentElement;
  const [open, menu, start, keys] = [".open", ".menu", ".start", "dl"].map((name) => root.querySelector(name));
  keys.replaceChildren(
    ...data.keys.flatMap(({ keys: pressed, does }) => {
      const [term, told] = [document.createElement("dt"), document.createElement("dd")];
      term.textContent = pressed;
      told.textContent = does;
      return [term, told];
    }),
  );
  // This function runs again whenever the theme or the page changes; a tour that is under way goes on.
  const tour = (root.tour ??= new Tour(root, data.steps));
  tour.steps = data.steps;
  open.onclick = () => menu.togglePopover();
  start.onclick = () => {
    menu.hidePopover();
    tour.open(open);
  };
  if (data.unasked && !root.toured && !seen()) {
    root.toured = true;
    tour.open(null);
  }
  return () => tour.frame(null);
}
