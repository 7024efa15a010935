// A cloud of points as it is drawn: an index over them, what is seen of it, density where many share a pixel, discs where
// few do. Plain arrays and a 2D canvas: no library, no graphics card, nothing that is fetched.

const CELLS = 256;
const SPAN = 65536;
// Seen at once, more points than this are shown as density.
const MOST_DISCS = 40000;
// Side of a density bin, in pixels of the page.
const BIN = 2;

class Cloud {
  // Points in the order of the cells of a grid, so that what is seen is a few stretches of memory.
  constructor(places) {
    const n = places.length / 2;
    const cellOf = new Uint16Array(n);
    const starts = new Uint32Array(CELLS * CELLS + 1);
    for (let i = 0; i < n; i++) {
      const cell = (places[2 * i + 1] >> 8) * CELLS + (places[2 * i] >> 8);
      cellOf[i] = cell;
      starts[cell + 1]++;
    }
    for (let cell = 0; cell < CELLS * CELLS; cell++) starts[cell + 1] += starts[cell];
    const next = starts.slice(0, -1);
    this.rows = new Uint32Array(n);
    this.x = new Uint16Array(n);
    this.y = new Uint16Array(n);
    for (let i = 0; i < n; i++) {
      const at = next[cellOf[i]]++;
      this.rows[at] = i;
      this.x[at] = places[2 * i];
      this.y[at] = places[2 * i + 1];
    }
    this.n = n;
    this.starts = starts;
    this.kinds = new Uint8Array(n);
  }

  paint(kinds) {
    for (let at = 0; at < this.n; at++) this.kinds[at] = kinds[this.rows[at]];
  }

  placeOf(row) {
    if (!this.inverse) {
      this.inverse = new Uint32Array(this.n);
      for (let at = 0; at < this.n; at++) this.inverse[this.rows[at]] = at;
    }
    const at = this.inverse[row];
    return [this.x[at], this.y[at]];
  }

  // Stretches of points whose cells meet a rectangle, as from and up to.
  runs(x0, y0, x1, y1) {
    const clip = (value) => Math.max(0, Math.min(CELLS - 1, Math.floor(value / (SPAN / CELLS))));
    if (x1 < 0 || y1 < 0 || x0 >= SPAN || y0 >= SPAN) return [];
    const [left, right, top, bottom] = [clip(x0), clip(x1), clip(y0), clip(y1)];
    const found = [];
    for (let row = top; row <= bottom; row++) {
      const from = this.starts[row * CELLS + left];
      const to = this.starts[row * CELLS + right + 1];
      if (to > from) found.push([from, to]);
    }
    return found;
  }

  // The point nearest to a place among those shown, within a distance; −1 where there is none.
  nearest(x, y, reach, shown) {
    let best = reach * reach;
    let found = -1;
    for (const [from, to] of this.runs(x - reach, y - reach, x + reach, y + reach)) {
      for (let at = from; at < to; at++) {
        const dx = this.x[at] - x;
        const dy = this.y[at] - y;
        const apart = dx * dx + dy * dy;
        if (apart < best && shown[this.kinds[at]]) {
          best = apart;
          found = at;
        }
      }
    }
    return found < 0 ? -1 : this.rows[found];
  }
}

// Colors of the density bins of what is seen; `stride` above 1 leaves out points while the view moves.
function density(cloud, runs, view, { shown, colors, stride, dim }) {
  const width = Math.ceil(view.width / BIN);
  const height = Math.ceil(view.height / BIN);
  const bins = width * height;
  const counts = new Uint32Array(bins);
  const red = new Float32Array(bins);
  const green = new Float32Array(bins);
  const blue = new Float32Array(bins);
  const scale = view.scale / BIN;
  const left = view.left;
  const top = view.top;
  const { x, y, kinds } = cloud;
  for (const [from, to] of runs) {
    for (let at = from; at < to; at += stride) {
      const kind = kinds[at];
      if (!shown[kind]) continue;
      const column = ((x[at] - left) * scale) | 0;
      const row = ((top - y[at]) * scale) | 0;
      if (column < 0 || row < 0 || column >= width || row >= height) continue;
      const bin = row * width + column;
      counts[bin]++;
      red[bin] += colors[3 * kind];
      green[bin] += colors[3 * kind + 1];
      blue[bin] += colors[3 * kind + 2];
    }
  }
  let most = 1;
  for (let bin = 0; bin < bins; bin++) if (counts[bin] > most) most = counts[bin];
  const image = new ImageData(width, height);
  const pixels = image.data;
  // Each doubling adds as much: a lone point is seen beside thousands.
  const full = Math.log2(1 + most);
  for (let bin = 0; bin < bins; bin++) {
    const count = counts[bin];
    if (!count) continue;
    pixels[4 * bin] = red[bin] / count;
    pixels[4 * bin + 1] = green[bin] / count;
    pixels[4 * bin + 2] = blue[bin] / count;
    pixels[4 * bin + 3] = 255 * dim * (0.3 + 0.7 * (Math.log2(1 + count) / full));
  }
  return { image, most };
}

// Few points, as discs with soft edges.
function discs(cloud, runs, view, { shown, colors, radius, ratio, alpha }) {
  const width = Math.round(view.width * ratio);
  const height = Math.round(view.height * ratio);
  const image = new ImageData(width, height);
  const pixels = image.data;
  const scale = view.scale * ratio;
  const r = radius * ratio;
  const reach = Math.ceil(r + 0.5);
  const mask = [];
  for (let dy = -reach; dy <= reach; dy++) {
    for (let dx = -reach; dx <= reach; dx++) {
      const cover = Math.max(0, Math.min(1, r + 0.5 - Math.hypot(dx, dy)));
      if (cover > 0) mask.push([dx, dy, cover * alpha]);
    }
  }
  for (const [from, to] of runs) {
    for (let at = from; at < to; at++) {
      const kind = cloud.kinds[at];
      if (!shown[kind]) continue;
      const column = Math.round((cloud.x[at] - view.left) * scale);
      const row = Math.round((view.top - cloud.y[at]) * scale);
      if (column < -reach || row < -reach || column >= width + reach || row >= height + reach) continue;
      for (const [dx, dy, cover] of mask) {
        const px = column + dx;
        const py = row + dy;
        if (px < 0 || py < 0 || px >= width || py >= height) continue;
        const to4 = 4 * (py * width + px);
        const under = pixels[to4 + 3] / 255;
        const over = cover + under * (1 - cover);
        for (let c = 0; c < 3; c++) {
          pixels[to4 + c] = (colors[3 * kind + c] * cover + pixels[to4 + c] * under * (1 - cover)) / over;
        }
        pixels[to4 + 3] = 255 * over;
      }
    }
  }
  return image;
}
