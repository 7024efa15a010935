// Asks for the text of the point under the mouse once it has rested there, and passes it on.

const REST_MS = 90;

export default function ({ data, setTriggerValue }) {
  const shared = sharedOf(data.key);
  let resting;
  shared.hovered = (row) => {
    clearTimeout(resting);
    if (row >= 0) resting = setTimeout(() => setTriggerValue("ask", { row, id: shared.places?.id }), REST_MS);
  };
  if (data.row !== null) shared.told?.(data.row, data.name, data.text);
  return () => {
    clearTimeout(resting);
    shared.hovered = null;
  };
}
