// What is drawn above the points of a map: what is picked, what is nearest to it, names, what was drawn around, and the
// point under the mouse.

function drawMarksOn(context, ink, { at, onPage, picked, near, labels, outline, under }) {
  const accent = ink.getPropertyValue("--accent");
  drawPicked(context, accent, picked.map(at));
  context.strokeStyle = ink.color;
  context.lineWidth = 1.25;
  for (const [x, y] of near.map(at)) {
    context.beginPath();
    context.rect(x - 4.5, y - 4.5, 9, 9);
    context.stroke();
  }
  drawNames(context, ink, labels.map(({ x, y, text }) => [...onPage(x, y), text]));
  if (outline.length > 2) drawOutline(context, accent, outline.map((corner) => onPage(...corner)));
  if (under >= 0) {
    context.strokeStyle = ink.color;
    context.lineWidth = 1.5;
    context.beginPath();
    context.arc(...at(under), 5, 0, 2 * Math.PI);
    context.stroke();
  }
}

function drawPicked(context, accent, places) {
  context.strokeStyle = accent;
  context.fillStyle = accent;
  const many = places.length > 200;
  context.lineWidth = many ? 1 : 2;
  for (const [x, y] of places) {
    context.beginPath();
    context.arc(x, y, many ? 2 : 6, 0, 2 * Math.PI);
    many ? context.fill() : context.stroke();
  }
}

function drawNames(context, ink, names) {
  context.font = `600 12px ${ink.fontFamily}`;
  context.textAlign = "center";
  for (const [x, y, text] of names) {
    const half = context.measureText(text).width / 2;
    context.fillStyle = ink.getPropertyValue("--paper");
    context.globalAlpha = 0.75;
    context.fillRect(x - half - 3, y - 17, 2 * half + 6, 16);
    context.globalAlpha = 1;
    context.fillStyle = ink.color;
    context.fillText(text, x, y - 5);
  }
}

function drawOutline(context, accent, corners) {
  context.strokeStyle = accent;
  context.lineWidth = 1.5;
  context.setLineDash([4, 3]);
  context.beginPath();
  corners.forEach((corner, number) => context[number ? "lineTo" : "moveTo"](...corner));
  context.closePath();
  context.stroke();
  context.setLineDash([]);
}
