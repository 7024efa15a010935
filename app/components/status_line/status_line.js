// A container of Streamlit's takes no role. It stays on the page while its text comes and goes, which is what a screen
// reader needs: a region that came together with its text would not be announced.

export default function ({ data }) {
  const box = document.querySelector(`.st-key-${CSS.escape(data.key)}`);
  box?.setAttribute("role", "status");
  box?.setAttribute("aria-live", "polite");
}
