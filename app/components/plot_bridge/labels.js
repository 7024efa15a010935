// Names beside the axes that can be clicked. Put before plot_bridge.js, which uses it.
// Plotly covers the names with panes for dragging, so it is the place of a click that tells which name was meant.

function labelUnder(chart, { clientX, clientY }) {
  for (const axis of ["x", "y"]) {
    for (const text of chart.querySelectorAll(`.${axis}axislayer-above .${axis}tick text`)) {
      const box = text.getBoundingClientRect();
      const inside = clientX >= box.left - 2 && clientX <= box.right + 2 && clientY >= box.top - 1 && clientY <= box.bottom + 1;
      const at = text.__data__?.x;
      if (inside && typeof at === "number") return { axis, at };
    }
  }
  return null;
}

function showThatLabelsLead(event) {
  const pane = event.target;
  if (!pane.closest?.(".draglayer") || pane.classList.contains("nsewdrag")) return;
  pane.style.cursor = labelUnder(event.currentTarget, event) ? "pointer" : "";
}
