// Lines of text with lit tokens. All text is set with textContent only; the list is drawn anew when its data change.

function element(tag, className, text) {
  const node = document.createElement(tag);
  if (className) node.className = className;
  if (text !== undefined) node.textContent = text;
  return node;
}

function line(row, number, open) {
  const button = element("button", "row");
  button.type = "button";
  button.onclick = () => open(number);
  const text = element("span", "text");
  // Without an embedding of its own a line begins at the side of its first letter.
  text.dir = "auto";
  row.pieces.forEach((piece, i) => {
    const strength = row.strengths[i];
    const token = element("span", strength > 0 ? "lit" : "", piece);
    if (strength > 0) token.style.setProperty("--s", strength);
    if (i === row.at) token.classList.add("at");
    text.append(token);
  });
  button.append(element("span", "value", row.value), text, element("span", "head", row.head));
  const item = element("div");
  item.setAttribute("role", "listitem");
  item.append(button);
  return item;
}

export default function contextList({ data, parentElement, setTriggerValue }) {
  const list = parentElement.querySelector(".contexts");
  list.style.setProperty("--c", data.color);
  list.setAttribute("aria-label", data.name);
  const open = (number) => setTriggerValue("open", number);
  list.replaceChildren(...data.rows.map((row, number) => line(row, number, open)));
  list.dataset.ready = String(data.rows.length);
}
