// Forwards clicks on a Plotly chart of the page to Python: Streamlit's own chart events know no heatmap cells.
// The chart is found by the class that Streamlit gives to a keyed element, so one browser test stands on it.

const POLL_MS = 250;
const bridges = new WeakMap();

function payload(point) {
  const { x, y, z, customdata, curveNumber } = point;
  return { x, y, z: z ?? null, customdata: customdata ?? null, curve: curveNumber };
}

export default function ({ parentElement, data, setTriggerValue }) {
  // This function runs again at each change of theme or data; what it holds lives as long as its element does.
  const old = bridges.get(parentElement);
  if (old) old.stop();

  let chart = null;
  const onClick = (event) => {
    const point = event?.points?.[0];
    if (point) setTriggerValue("click", payload(point));
  };
  const attach = () => {
    // Streamlit may replace the node at any rerun, hence the poll rather than one look.
    const found = document.querySelector(`.st-key-${CSS.escape(data.target)} .js-plotly-plot`);
    if (!found || found === chart || typeof found.on !== "function") return;
    if (chart) chart.removeListener?.("plotly_click", onClick);
    chart = found;
    chart.on("plotly_click", onClick);
    chart.dataset.bridged = "true";
    chart.querySelectorAll(".nsewdrag").forEach((pane) => (pane.style.cursor = "pointer"));
  };
  attach();
  const timer = setInterval(attach, POLL_MS);
  const stop = () => {
    clearInterval(timer);
    chart?.removeListener?.("plotly_click", onClick);
  };
  bridges.set(parentElement, { stop });
  return stop;
}
