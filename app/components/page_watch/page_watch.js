// Asks for a new run when the reader changes between light and dark: Streamlit repaints its own parts without one,
// and would leave our figures in the look of before. It calls this function again whenever the theme changes.
// And says when the reader goes back or forward on one page: a run by itself may also come with an old URL because it
// is late. Going back to another page is Streamlit's alone: a word from here would ask for the page that was left.

// Of the page that is drawn. Outside the function, so that a listener of an earlier call does not keep an earlier page.
let path = "";

function lookOf(element) {
  const color = getComputedStyle(element).getPropertyValue("--st-background-color").trim();
  const match = /^#([0-9a-f]{6})/i.exec(color);
  if (!match) return null;
  const [red, green, blue] = [0, 2, 4].map((at) => parseInt(match[1].slice(at, at + 2), 16));
  return 0.299 * red + 0.587 * green + 0.114 * blue < 128 ? "dark" : "light";
}

export default function ({ parentElement, data, setTriggerValue }) {
  const look = lookOf(parentElement.host ?? parentElement);
  if (look && look !== data.drawn) setTriggerValue("look", look);

  path = window.location.pathname;
  const went = () => {
    if (window.location.pathname === path) setTriggerValue("went", window.location.search);
  };
  window.addEventListener("popstate", went);
  return () => window.removeEventListener("popstate", went);
}
