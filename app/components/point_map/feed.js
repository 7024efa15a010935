// Takes in places or colors of a map and passes them on.

export default function ({ data }) {
  const { head, body } = opened(data);
  const shared = sharedOf(head.key);
  if (head.what === "places") shared.places = { ...head, places: new Uint16Array(body.buffer) };
  else shared.kinds = { ...head, kinds: body };
  shared.changed?.(head.what);
}
