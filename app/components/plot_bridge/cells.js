// The cells of a heatmap by key: arrows go from cell to cell, Enter does what a click does. Put before plot_bridge.js.
// Plotly knows the mouse alone, so a frame stands over the cells, takes the focus, and moves the mouse for the keys.

const HOVER_MS = 150;
// Target → where the keys are in it, which outlives a chart that Streamlit draws anew.
const reached = new Map();

function axisOf(chart, id) {
  return chart._fullLayout[id.replace(/^([xy])(\d*)$/, "$1axis$2")];
}

class Cells {
  constructor(chart, target) {
    Object.assign(this, { chart, at: reached.get(target) ?? { row: 0, column: 0, isHere: false } });
    reached.set(target, this.at);
    this.frame = document.createElement("div");
    this.frame.className = "cells-by-key";
    this.frame.tabIndex = 0;
    this.frame.setAttribute("role", "application");
    const figure = chart.closest("[role=figure]")?.getAttribute("aria-label")?.split(". ")[0] ?? "the figure";
    this.frame.setAttribute("aria-label", `Cells of ${figure}: arrow keys go from cell to cell, Enter picks one`);
    this.cursor = document.createElement("div");
    this.live = document.createElement("div");
    this.live.setAttribute("aria-live", "polite");
    Object.assign(this.frame.style, { position: "absolute", pointerEvents: "none", zIndex: 2 });
    Object.assign(this.cursor.style, { position: "absolute", boxSizing: "border-box", display: "none" });
    Object.assign(this.live.style, { position: "absolute", width: "1px", height: "1px", overflow: "hidden", clipPath: "inset(50%)" });
    this.frame.append(this.cursor, this.live);
    this.frame.onkeydown = (event) => this.key(event);
    this.frame.onfocus = () => {
      this.at.isHere = true;
      this.go(this.at.row, this.at.column);
    };
    this.frame.onblur = () => this.leave();
    if (getComputedStyle(chart).position === "static") chart.style.position = "relative";
    chart.append(this.frame);
    this.place();
    if (this.at.isHere && document.activeElement === document.body) this.frame.focus();
  }

  static in(chart) {
    return chart.calcdata?.some(([first]) => first?.trace?.type === "heatmap" && first.x?.length > 1);
  }

  // Looked up anew at each key: a zoom or another choice has other cells.
  grid() {
    const found = this.chart.calcdata?.find(([first]) => first?.trace?.type === "heatmap" && first.x?.length > 1);
    if (!found) return null;
    const [{ x, y, trace }] = found;
    const [across, down] = [axisOf(this.chart, trace.xaxis), axisOf(this.chart, trace.yaxis)];
    const pane = this.chart.querySelector(`.draglayer .${trace.xaxis}${trace.yaxis} .nsewdrag`);
    return pane && { across, down, pane, x, y };
  }

  place() {
    const grid = this.grid();
    if (!grid) return;
    const { across, down } = grid;
    const [left, top, width, height] = [across._offset, down._offset, across._length, down._length];
    Object.assign(this.frame.style, { left: `${left}px`, top: `${top}px`, width: `${width}px`, height: `${height}px` });
  }

  // Edges of a cell in the frame, null where the part that is zoomed into does not hold it.
  edges({ across, down, x, y }, row, column) {
    if (!(row >= 0 && column >= 0 && row < y.length - 1 && column < x.length - 1)) return null;
    const [left, right] = [across.c2p(x[column]), across.c2p(x[column + 1])].sort((a, b) => a - b);
    const [top, bottom] = [down.c2p(y[row]), down.c2p(y[row + 1])].sort((a, b) => a - b);
    const [middle, center] = [(left + right) / 2, (top + bottom) / 2];
    const isSeen = middle >= 0 && center >= 0 && middle <= across._length && center <= down._length;
    return isSeen ? { left, top, right, bottom, middle, center } : null;
  }

  go(row, column) {
    const grid = this.grid();
    this.place();
    const at = grid && this.edges(grid, row, column);
    if (!at) return false;
    Object.assign(this.at, { row, column });
    const color = getComputedStyle(this.chart).color;
    Object.assign(this.cursor.style, {
      display: "block", left: `${at.left - 2}px`, top: `${at.top - 2}px`, width: `${at.right - at.left + 4}px`,
      height: `${at.bottom - at.top + 4}px`, border: `2px solid ${color}`, outline: "2px solid Canvas",
    });
    this.mouse("mousemove");
    clearTimeout(this.telling);
    this.telling = setTimeout(() => (this.live.textContent = this.told?.() ?? ""), HOVER_MS);
    return true;
  }

  mouse(what) {
    const grid = this.grid();
    const at = grid && this.edges(grid, this.at.row, this.at.column);
    if (!at) return;
    const box = grid.pane.getBoundingClientRect();
    const place = { clientX: box.left + at.middle, clientY: box.top + at.center };
    grid.pane.dispatchEvent(new MouseEvent(what, { bubbles: true, cancelable: true, view: window, button: 0, ...place }));
  }

  leave() {
    clearTimeout(this.telling);
    // A frame that is taken off the page with its chart is not left by the reader.
    setTimeout(() => (this.at.isHere = this.at.isHere && !this.frame.isConnected));
    this.cursor.style.display = "none";
    this.mouse("mouseout");
  }

  key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const grid = this.grid();
    if (!grid) return;
    const isUpward = grid.down.c2p(grid.y[0]) > grid.down.c2p(grid.y[1]);
    const up = isUpward ? 1 : -1;
    const step = { ArrowRight: [0, 1], ArrowLeft: [0, -1], ArrowUp: [up, 0], ArrowDown: [-up, 0] }[event.key];
    if (step) {
      // What a zoom left out is passed over, as is the first cell where it is not in sight.
      let [row, column] = [this.at.row + step[0], this.at.column + step[1]];
      while (row >= 0 && column >= 0 && row < grid.y.length - 1 && column < grid.x.length - 1) {
        if (this.go(row, column)) break;
        [row, column] = [row + step[0], column + step[1]];
      }
    } else if (event.key === "Home" || event.key === "End") {
      const columns = [...grid.x.keys()].slice(0, -1);
      if (event.key === "End") columns.reverse();
      columns.some((column) => this.go(this.at.row, column));
    } else if (event.key === "Enter") {
      this.mouse("mousemove");
      this.mouse("mousedown");
      this.mouse("mouseup");
    } else return;
    event.preventDefault();
  }

  stop() {
    clearTimeout(this.telling);
    this.frame.remove();
  }
}
