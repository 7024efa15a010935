// Draws the figures of a report from the data beside them, and saves their numbers. Asks nobody for anything.
"use strict";

function told(id) {
  return JSON.parse(document.getElementById(id).textContent);
}

for (const place of document.querySelectorAll(".plot")) {
  const spec = told(place.id.replace("f", "d"));
  const name = place.closest("figure").querySelector("button.csv").dataset.name.replace(/\.csv$/, "");
  Plotly.newPlot(place, spec.data, spec.layout, {
    displaylogo: false,
    responsive: true,
    showSendToCloud: false,
    toImageButtonOptions: { format: "svg", filename: name },
  }).then(() => {
    place.dataset.drawn = "true";
  });
}

for (const button of document.querySelectorAll("button.csv")) {
  button.onclick = () => {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([told(button.dataset.of)], { type: "text/csv" }));
    link.download = button.dataset.name;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  };
}
