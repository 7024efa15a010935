// What a cell of a large heatmap says when pointed at. Put before plot_bridge.js, which uses it.
// Names travel once, and cells as numbers: a name for each cell would weigh ten times what the picture does.

const NONE = 65535;

function unpacked(text) {
  const letters = atob(text);
  const bytes = new Uint8Array(letters.length);
  for (let at = 0; at < letters.length; at += 1) bytes[at] = letters.charCodeAt(at);
  return new Uint16Array(bytes.buffer);
}

function written(value, kind) {
  if (kind === "percent") return `${(100 * value).toFixed(value >= 0.1 ? 0 : value >= 0.01 ? 1 : 2)} %`;
  return kind === "ratio" ? `×${(2 ** value).toFixed(2)}` : value.toFixed(3);
}

function tooltipOf(data) {
  // Not before a cell is pointed at: a picture is drawn more often than it is asked.
  let source, lines;
  const unpack = () => {
    source = unpacked(data.source);
    lines = data.lines.map((line) => ({ ...line, codes: unpacked(line.codes) }));
  };
  const box = document.createElement("div");
  Object.assign(box.style, {
    position: "fixed", zIndex: 1000, pointerEvents: "none", display: "none", padding: "0.35rem 0.6rem", fontSize: "0.8rem",
    lineHeight: "1.45", fontFamily: "var(--st-font)", color: "var(--st-text-color)", background: "var(--st-background-color)",
    border: "1px solid var(--st-border-color)", borderRadius: "0.3rem", boxShadow: "0 2px 10px rgb(0 0 0 / 0.15)",
    fontVariantNumeric: "tabular-nums",
  });
  box.className = "cell-tooltip";
  const show = ([row, column], mouse) => {
    if (!source) unpack();
    const at = row * data.width + column;
    const head = document.createElement("b");
    head.textContent = `${data.rows[row]} · ${data.columns[source[at]]}`;
    const rest = lines.filter(({ codes }) => codes[at] !== NONE).map(({ text, kind, low, step, codes }) => {
      const line = document.createElement("div");
      line.textContent = text.replace("{}", written(low + codes[at] * step, kind));
      return line;
    });
    box.replaceChildren(head, ...rest);
    box.style.display = "block";
    const left = Math.min(mouse.clientX + 14, window.innerWidth - box.offsetWidth - 8);
    box.style.left = `${left}px`;
    box.style.top = `${Math.max(8, mouse.clientY - box.offsetHeight - 10)}px`;
  };
  const hide = () => {
    box.style.display = "none";
  };
  return { box, show, hide };
}
