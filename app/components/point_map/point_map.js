// The map itself: pan, zoom, lasso, and what is under the mouse. Needs shared.js, cloud.js, legend.js and marks.js before it.
// Streamlit calls the default export again for each change of data or theme; what must live in between is kept here.

const maps = new WeakMap();
const ZOOM_STEP = 1.25;
const MOST_ZOOM = 400;
// A frame that took longer than this makes the next ones of a movement leave out points.
const SLOW_MS = 24;
const SETTLE_MS = 140;
const REACH = 9;

class PointMap {
  constructor(host) {
    for (const part of ["map", "stage", "picture", "marks", "tools", "tip", "live", "count"]) {
      this[part] = host.querySelector(`.${part}`);
    }
    this.legend = new Legend(host.querySelector(".legend"), {
      changed: () => this.soon(),
      told: (hidden) => this.send("hide", hidden),
    });
    this.mode = "lasso";
    this.lasso = null;
    this.stage.onpointerdown = (event) => this.down(event);
    this.stage.onpointermove = (event) => this.move(event);
    this.stage.onpointerup = (event) => this.up(event);
    this.stage.onpointerleave = () => this.point(-1);
    this.stage.onkeydown = (event) => this.key(event);
    this.stage.addEventListener("wheel", (event) => this.wheel(event), { passive: false });
    for (const button of this.tools.querySelectorAll("button")) button.onclick = () => this.tool(button.dataset.tool);
    this.watch = new ResizeObserver(() => this.resized());
    this.watch.observe(this.stage);
  }

  update(data, send) {
    this.send = send;
    if (this.data?.key !== data.key) {
      this.shared = sharedOf(data.key);
      this.shared.changed = (what) => this.fed(what);
      this.shared.told = (row, name, text) => this.tell(row, name, text);
    }
    this.data = data;
    // What was drawn stands in the data from now on.
    if (!this.held) this.lasso = null;
    // Adopted only when the page changed its mind: a run that an earlier click caused must not take back a later one.
    const { revision, title, names } = data.hidden;
    if (revision !== this.shared.hiddenRevision) {
      this.shared.hiddenRevision = revision;
      this.legend.adopt(this.shared, title, names);
    }
    this.stage.setAttribute("aria-label", data.name);
    this.fed("places");
    this.fed("kinds");
    this.soon();
  }

  fed(what) {
    const { places, kinds } = this.shared;
    if (what === "places" && places && places.id !== this.placesId) {
      this.placesId = places.id;
      this.cloud = new Cloud(places.places);
      this.paintedId = null;
      // The page may have put the map elsewhere: the reader still looks at the same part.
      const kept = this.shared.kept;
      if (kept?.id === places.id && this.box) this.view = { ...kept.view, ...this.box };
      else this.reset();
      this.least = this.whole().scale;
    }
    if (!this.cloud || !kinds || kinds.kinds.length !== this.cloud.n) return;
    if (kinds.id !== this.paintedId) {
      this.paintedId = kinds.id;
      this.cloud.paint(kinds.kinds);
      this.colors = new Float32Array(kinds.colors.flat());
      this.legend.draw(this.shared);
    }
    this.soon();
  }

  // ——— where things are ———

  resized() {
    const box = this.stage.getBoundingClientRect();
    if (!box.width || !box.height) return;
    const was = this.view ?? (this.shared?.kept?.id === this.placesId ? this.shared.kept?.view : null);
    this.box = { width: box.width, height: box.height };
    if (this.shared?.places) this.least = this.whole().scale;
    if (!was) this.reset();
    else {
      this.view = { ...was, ...this.box };
      this.soon();
    }
  }

  whole() {
    const { width, height } = this.box ?? { width: 1, height: 1 };
    const [w, h] = this.shared.places.extent;
    const scale = 0.94 * Math.min(width / w, height / h);
    return { width, height, scale, left: w / 2 - width / 2 / scale, top: h / 2 + height / 2 / scale };
  }

  reset() {
    if (!this.box || !this.shared?.places) return;
    this.view = this.whole();
    this.least = this.view.scale;
    this.soon();
  }

  zoom(factor, x, y) {
    if (!this.view) return;
    const scale = Math.max(this.least * 0.5, Math.min(this.least * MOST_ZOOM, this.view.scale * factor));
    const { left, top } = this.view;
    const was = this.view.scale;
    this.view = { ...this.view, scale, left: left + x / was - x / scale, top: top - y / was + y / scale };
    this.moved();
  }

  pan(dx, dy) {
    const { scale, left, top } = this.view;
    this.view = { ...this.view, left: left - dx / scale, top: top + dy / scale };
    this.moved();
  }

  moved() {
    this.moving = true;
    clearTimeout(this.settling);
    this.settling = setTimeout(() => {
      this.moving = false;
      this.soon();
    }, SETTLE_MS);
    this.soon();
  }

  inCloud(x, y) {
    return [this.view.left + x / this.view.scale, this.view.top - y / this.view.scale];
  }

  onPage(x, y) {
    return [(x - this.view.left) * this.view.scale, (this.view.top - y) * this.view.scale];
  }

  // ——— drawing ———

  soon() {
    if (this.frame) return;
    this.frame = requestAnimationFrame(() => {
      this.frame = null;
      this.draw();
    });
  }

  draw() {
    if (!this.view || !this.cloud || !this.legend.shown) return;
    const start = performance.now();
    const ratio = window.devicePixelRatio || 1;
    const { width, height, scale, left, top } = this.view;
    for (const canvas of [this.picture, this.marks]) {
      if (canvas.width !== Math.round(width * ratio) || canvas.height !== Math.round(height * ratio)) {
        canvas.width = Math.round(width * ratio);
        canvas.height = Math.round(height * ratio);
      }
    }
    const runs = this.cloud.runs(left, top - height / scale, left + width / scale, top);
    const seen = runs.reduce((sum, [from, to]) => sum + to - from, 0);
    const context = this.picture.getContext("2d");
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.clearRect(0, 0, this.picture.width, this.picture.height);
    // One point is found by its ring; many are told from the rest.
    const dimmed = this.data.picked.length > 1;
    const look = { shown: this.legend.shown, colors: this.colors };
    const far = seen > MOST_DISCS;
    if (far) {
      const stride = this.moving ? Math.max(1, Math.ceil((this.cost || 0) / SLOW_MS)) : 1;
      const { image } = density(this.cloud, runs, this.view, { ...look, stride, dim: dimmed ? 0.35 : 1 });
      const small = (this.small ??= document.createElement("canvas"));
      small.width = image.width;
      small.height = image.height;
      small.getContext("2d").putImageData(image, 0, 0);
      context.imageSmoothingEnabled = false;
      context.drawImage(small, 0, 0, image.width * BIN * ratio, image.height * BIN * ratio);
      if (stride === 1) this.cost = performance.now() - start;
    } else {
      const radius = seen > 10000 ? 1.6 : seen > 2000 ? 2.4 : 3.6;
      const image = discs(this.cloud, runs, this.view, { ...look, radius, ratio, alpha: dimmed ? 0.25 : 0.85 });
      context.putImageData(image, 0, 0);
    }
    this.drawMarks(ratio);
    this.shared.kept = { id: this.placesId, view: this.view };
    const shown = far ? "density: each doubling of points is one step stronger" : "single points";
    this.count.textContent = `${seen.toLocaleString("en")} of ${this.cloud.n.toLocaleString("en")} points in sight, as ${shown}`;
    this.map.dataset.ready = `${this.placesId}:${this.paintedId}`;
    this.map.dataset.far = String(far);
    this.map.dataset.ms = (performance.now() - start).toFixed(1);
  }

  drawMarks(ratio) {
    const context = this.marks.getContext("2d");
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.clearRect(0, 0, this.view.width, this.view.height);
    const { picked, near, labels, outline } = this.data;
    drawMarksOn(context, getComputedStyle(this.map), {
      at: (row) => this.onPage(...this.cloud.placeOf(row)),
      onPage: (x, y) => this.onPage(x, y),
      picked,
      near,
      labels,
      outline: this.lasso ?? outline,
      under: this.under,
    });
  }

  // ——— mouse and keys ———

  place(event) {
    const box = this.stage.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  }

  down(event) {
    if (event.button !== 0 || !this.view) return;
    this.stage.setPointerCapture(event.pointerId);
    this.held = { at: this.place(event), from: this.place(event), pans: (this.mode === "pan") !== event.shiftKey, moved: false };
    this.point(-1);
  }

  move(event) {
    const [x, y] = this.place(event);
    if (!this.held) return this.look(x, y);
    const [fromX, fromY] = this.held.from;
    if (!this.held.moved && Math.hypot(x - fromX, y - fromY) < 4) return;
    if (!this.held.moved && !this.held.pans) this.lasso = [this.inCloud(fromX, fromY)];
    this.held.moved = true;
    if (this.held.pans) {
      this.pan(x - this.held.at[0], y - this.held.at[1]);
      this.held.at = [x, y];
    } else {
      this.lasso.push(this.inCloud(x, y));
      this.drawMarks(window.devicePixelRatio || 1);
    }
  }

  up(event) {
    const held = this.held;
    this.held = null;
    if (!held) return;
    if (!held.moved) {
      const row = this.rowAt(...this.place(event));
      if (row >= 0) this.send("click", { row, id: this.placesId });
      return;
    }
    if (held.pans || !this.lasso) return;
    const { step, low } = this.shared.places;
    const corners = this.lasso.length > 400 ? this.lasso.filter((_, i) => i % Math.ceil(this.lasso.length / 400) === 0) : this.lasso;
    if (corners.length > 2) {
      this.send("lasso", { x: corners.map(([x]) => low[0] + x * step), y: corners.map(([, y]) => low[1] + y * step), off: this.legend.off(), id: this.placesId });
    }
  }

  wheel(event) {
    event.preventDefault();
    this.point(-1);
    this.zoom(Math.exp(-event.deltaY * (event.deltaMode ? 0.05 : 0.0016)), ...this.place(event));
  }

  key(event) {
    const step = event.shiftKey ? 200 : 50;
    const middle = [this.box.width / 2, this.box.height / 2];
    const does = {
      ArrowLeft: () => this.pan(step, 0),
      ArrowRight: () => this.pan(-step, 0),
      ArrowUp: () => this.pan(0, step),
      ArrowDown: () => this.pan(0, -step),
      "+": () => this.zoom(ZOOM_STEP, ...middle),
      "=": () => this.zoom(ZOOM_STEP, ...middle),
      "-": () => this.zoom(1 / ZOOM_STEP, ...middle),
      0: () => this.reset(),
      Escape: () => this.clear(),
      Enter: () => {
        const row = this.rowAt(...middle, 40);
        if (row >= 0) this.send("click", { row, id: this.placesId });
      },
    }[event.key];
    if (!does) return;
    event.preventDefault();
    does();
  }

  clear() {
    this.lasso = null;
    this.soon();
    if (this.data.picked.length || this.data.outline.length) this.send("clear", { id: this.placesId });
  }

  tool(name) {
    const middle = [this.box.width / 2, this.box.height / 2];
    if (name === "lasso" || name === "pan") this.mode = name;
    else if (name === "in") this.zoom(ZOOM_STEP * ZOOM_STEP, ...middle);
    else if (name === "out") this.zoom(1 / ZOOM_STEP / ZOOM_STEP, ...middle);
    else if (name === "all") this.reset();
    else if (name === "save") this.save();
    this.stage.classList.toggle("pans", this.mode === "pan");
    for (const button of this.tools.querySelectorAll("[aria-pressed]")) {
      button.setAttribute("aria-pressed", String(button.dataset.tool === this.mode));
    }
  }

  save() {
    const whole = document.createElement("canvas");
    whole.width = this.picture.width;
    whole.height = this.picture.height;
    const context = whole.getContext("2d");
    context.fillStyle = getComputedStyle(this.map).getPropertyValue("--paper");
    context.fillRect(0, 0, whole.width, whole.height);
    context.drawImage(this.picture, 0, 0);
    context.drawImage(this.marks, 0, 0);
    const link = document.createElement("a");
    link.download = `${this.data.key}.png`;
    link.href = whole.toDataURL("image/png");
    link.click();
  }

  rowAt(x, y, reach = REACH) {
    if (!this.cloud || !this.view || !this.legend.shown) return -1;
    return this.cloud.nearest(...this.inCloud(x, y), reach / this.view.scale, this.legend.shown);
  }

  look(x, y) {
    this.mouse = [x, y];
    if (this.looking) return;
    this.looking = requestAnimationFrame(() => {
      this.looking = null;
      if (!this.held) this.point(this.rowAt(...this.mouse));
    });
  }

  point(row) {
    if (row === this.under) return;
    this.under = row;
    if (this.view && this.cloud) this.drawMarks(window.devicePixelRatio || 1);
    this.tip.style.display = "none";
    this.shared?.hovered?.(row);
  }

  tell(row, name, text) {
    if (row !== this.under || !this.view) return;
    const head = document.createElement("b");
    head.textContent = name;
    const lines = text.split("\n").map((line) => {
      const node = document.createElement("div");
      node.textContent = line;
      return node;
    });
    this.tip.replaceChildren(head, ...lines);
    this.tip.style.display = "block";
    const [x, y] = this.onPage(...this.cloud.placeOf(row));
    this.tip.style.left = `${Math.max(4, Math.min(x + 12, this.box.width - this.tip.offsetWidth - 4))}px`;
    this.tip.style.top = `${Math.max(4, y - this.tip.offsetHeight - 10)}px`;
    this.live.textContent = `${name}. ${text}`;
  }

  stop() {
    this.watch.disconnect();
    clearTimeout(this.settling);
    this.legend.stop();
    cancelAnimationFrame(this.frame);
    if (this.shared) Object.assign(this.shared, { changed: null, told: null });
  }
}

export default function ({ data, parentElement, setTriggerValue }) {
  let map = maps.get(parentElement);
  if (!map) maps.set(parentElement, (map = new PointMap(parentElement)));
  map.update(data, setTriggerValue);
  return () => {
    map.stop();
    maps.delete(parentElement);
  };
}
