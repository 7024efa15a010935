// Has Plotly save a chart of the page as a picture. Streamlit keeps the library to itself, but every chart carries its
// own camera button, which saves in whatever format the chart's settings name: so the format is set, and the button
// pressed. The chart is found by the class that Streamlit gives to a keyed element; one browser test stands on both.

const FORMATS = ["png", "svg"];
const PATIENCE_MS = 10000;
const WAIT_MS = 100;
const NAMES = { png: "PNG, three times the screen's resolution", svg: "SVG, for papers and slides" };

function cameraOf(chart) {
  return [...chart.querySelectorAll(".modebar-btn")].find((button) => /^Download plot/.test(button.dataset.title ?? ""));
}

// The page can be ready before a chart on it is drawn, and Plotly refuses a second picture while it makes one.
function whenReady(target, problem, press, left = PATIENCE_MS) {
  const chart = document.querySelector(`.st-key-${CSS.escape(target)} .js-plotly-plot`);
  const camera = chart && cameraOf(chart);
  if (camera && !chart._snapshotInProgress) {
    problem.textContent = "";
    press(chart, camera);
  } else if (left > 0) {
    setTimeout(() => whenReady(target, problem, press, left - WAIT_MS), WAIT_MS);
  } else {
    problem.textContent = "The figure is not drawn yet; try again in a moment.";
  }
}

function save(target, format, problem) {
  whenReady(target, problem, (chart, camera) => {
    const options = chart._context.toImageButtonOptions;
    const before = { ...options };
    Object.assign(options, { format, scale: format === "png" ? 3 : 1, filename: target });
    camera.click();
    Object.assign(options, before);
  });
}

export default function ({ parentElement, data }) {
  const row = document.createElement("div");
  row.className = "pictures";
  const problem = document.createElement("p");
  problem.className = "problem";
  problem.setAttribute("role", "status");
  for (const format of FORMATS) {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = format.toUpperCase();
    button.title = NAMES[format];
    button.setAttribute("aria-label", `Save as ${NAMES[format]}`);
    button.onclick = () => save(data.target, format, problem);
    row.append(button);
  }
  // This function runs again at each change of theme or data; what stood here before goes.
  for (const old of parentElement.querySelectorAll(".pictures, .problem")) old.remove();
  parentElement.append(row, problem);
}
