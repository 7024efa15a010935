// Copies the link of the page, and keeps selections with names in this browser's own storage.

const PLACE = "routescope.selections";
const MOST = 200;
const SAID_MS = 1600;

function kept() {
  try {
    const found = JSON.parse(localStorage.getItem(PLACE) ?? "[]");
    return Array.isArray(found) ? found.filter((each) => typeof each?.name === "string" && typeof each?.query === "string") : [];
  } catch {
    return [];
  }
}

function keep(list) {
  try {
    localStorage.setItem(PLACE, JSON.stringify(list.slice(0, MOST)));
    return true;
  } catch {
    return false;
  }
}

async function copied(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    // Without https a browser gives no clipboard to scripts, save for what is marked on the page.
    const field = document.createElement("textarea");
    field.value = text;
    document.body.append(field);
    field.select();
    const done = document.execCommand("copy");
    field.remove();
    return done;
  }
}

function element(tag, className, text) {
  const node = document.createElement(tag);
  if (className) node.className = className;
  if (text !== undefined) node.textContent = text;
  return node;
}

export default function shelf({ data, parentElement, setTriggerValue }) {
  const part = (name) => parentElement.querySelector(name);
  const [copy, open, panel, form, name, list, live] = [
    ".copy", ".open", ".panel", "form", "input", ".kept", ".live",
  ].map(part);

  const say = (text) => {
    live.textContent = text;
  };
  copy.onclick = async () => {
    const done = await copied(window.location.href);
    copy.textContent = done ? "Copied" : "See address bar";
    say(done ? "Link copied" : "Copy the link from the address bar");
    setTimeout(() => (copy.textContent = "Link"), SAID_MS);
  };

  const draw = () => {
    const all = kept();
    open.textContent = all.length ? `Saved ${all.length}` : "Saved";
    part(".what").textContent = data.query ? `Now: ${data.summary}` : "Nothing is selected now: pick tasks, prompts, layers or experts first.";
    name.disabled = form.querySelector("button").disabled = !data.query;
    list.replaceChildren(...all.map((each) => {
      const item = element("div", "item");
      item.setAttribute("role", "listitem");
      const apply = element("button", "apply");
      apply.type = "button";
      apply.append(element("b", "", each.name), element("small", "", `${each.summary ?? ""} · ${each.run ?? ""}`));
      apply.onclick = () => {
        panel.hidePopover();
        setTriggerValue("apply", each.query);
      };
      const drop = element("button", "drop", "✕");
      drop.type = "button";
      drop.setAttribute("aria-label", `Forget ${each.name}`);
      drop.onclick = () => {
        keep(kept().filter((other) => other.name !== each.name));
        draw();
      };
      item.append(apply, drop);
      return item;
    }));
  };
  open.onclick = () => {
    draw();
    panel.showPopover();
    const box = open.getBoundingClientRect();
    panel.style.top = `${box.bottom + 6}px`;
    panel.style.left = `${Math.max(8, Math.min(box.left, window.innerWidth - panel.offsetWidth - 12))}px`;
    (data.query ? name : panel).focus();
  };
  form.onsubmit = (event) => {
    event.preventDefault();
    const called = name.value.trim() || data.summary;
    const entry = { name: called, query: data.query, summary: data.summary, run: data.run };
    say(keep([entry, ...kept().filter((each) => each.name !== called)]) ? `Saved ${called}` : "This browser keeps nothing");
    name.value = "";
    draw();
  };
  draw();
}
