// Forwards clicks on a Plotly chart of the page to Python, and zooms: Streamlit's own chart events know no heatmap cells.
// The chart is found by the class that Streamlit gives to a keyed element, so one browser test stands on it.

const POLL_MS = 250;
// A wheel or a pan sends many; the last one counts.
const SETTLE_MS = 300;
const bridges = new WeakMap();

function payload(point) {
  const { x, y, z, customdata, curveNumber } = point;
  // A row of a typed table would travel as an object of its places.
  const told = ArrayBuffer.isView(customdata) ? Array.from(customdata) : (customdata ?? null);
  return { x, y, z: z ?? null, customdata: told, curve: curveNumber };
}

function rangeOf(change, chart) {
  const keys = Object.keys(change);
  if (keys.some((key) => /^[xy]axis\.autorange$/.test(key))) return { reset: true };
  if (!keys.some((key) => /^[xy]axis\.range/.test(key))) return null;
  const { xaxis, yaxis } = chart._fullLayout;
  return { x: [...xaxis.range], y: [...yaxis.range] };
}

export default function ({ parentElement, data, setTriggerValue }) {
  // This function runs again at each change of theme or data; what it holds lives as long as its element does.
  const old = bridges.get(parentElement);
  if (old) old.stop();

  let chart = null;
  let settled;
  const tooltip = data.tooltip ? tooltipOf(data.tooltip) : null;
  if (tooltip) (parentElement.shadowRoot ?? parentElement).append(tooltip.box);
  const handlers = {
    plotly_click: (event) => {
      const point = event?.points?.[0];
      if (point) setTriggerValue("click", payload(point));
    },
    plotly_relayout: (change) => {
      const range = data.zooms && rangeOf(change, chart);
      if (!range) return;
      clearTimeout(settled);
      settled = setTimeout(() => setTriggerValue("range", range), SETTLE_MS);
    },
    plotly_restyle: ([change]) => {
      if (!data.legend || !("visible" in change)) return;
      setTriggerValue("hide", { names: chart.data.filter((trace) => trace.visible === "legendonly").map(({ name }) => name) });
    },
    plotly_hover: (event) => {
      const point = event?.points?.[0];
      const place = point?.pointIndex ?? point?.pointNumber;
      if (tooltip && Array.isArray(place)) tooltip.show(place, event.event);
    },
    plotly_unhover: () => tooltip?.hide(),
  };
  const named = (event) => {
    const label = data.labels && labelUnder(chart, event);
    if (label) setTriggerValue("label", label);
  };
  // What the chart or our own box says of the cell under the mouse.
  const told = () => {
    const own = tooltip?.box.style.display === "block" ? [...tooltip.box.children].map((line) => line.textContent) : [];
    const lines = [...chart.querySelectorAll(".hoverlayer .hovertext text")].map((text) =>
      [...(text.querySelectorAll("tspan.line").length ? text.querySelectorAll("tspan.line") : [text])].map((line) => line.textContent).join(", "),
    );
    return [...own, ...lines].join(", ");
  };
  let cells = old?.cells ?? null;
  if (cells) cells.told = told;
  const detach = () => {
    chart?.removeEventListener("click", named);
    chart?.removeEventListener("mousemove", showThatLabelsLead);
    for (const [name, handler] of Object.entries(handlers)) chart?.removeListener?.(name, handler);
  };
  const attach = () => {
    // Streamlit may replace the node at any rerun, hence the poll rather than one look.
    const found = document.querySelector(`.st-key-${CSS.escape(data.target)} .js-plotly-plot`);
    if (found && found === chart && data.clicks && !(cells?.frame.isConnected && cells.chart === chart) && Cells.in(chart)) {
      cells?.stop();
      cells = bridges.get(parentElement).cells = Object.assign(new Cells(chart, data.target), { told });
    }
    if (!found || found === chart || typeof found.on !== "function") return;
    detach();
    chart = found;
    for (const [name, handler] of Object.entries(handlers)) chart.on(name, handler);
    if (data.labels) {
      chart.addEventListener("click", named);
      chart.addEventListener("mousemove", showThatLabelsLead);
    }
    chart.dataset.bridged = "true";
    chart.querySelectorAll(".nsewdrag").forEach((pane) => (pane.style.cursor = "pointer"));
  };
  attach();
  const timer = setInterval(attach, POLL_MS);
  const stop = () => {
    clearInterval(timer);
    clearTimeout(settled);
    detach();
    tooltip?.box.remove();
  };
  bridges.set(parentElement, { stop, cells });
  return () => {
    stop();
    bridges.get(parentElement)?.cells?.stop();
  };
}
