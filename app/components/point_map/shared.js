// What the parts of one map hand to each other: places and colors come by themselves, for they are large and rarely change.
// Put before each part, which is a module of its own.

function sharedOf(key) {
  const name = Symbol.for("routescope.point_map");
  const all = (globalThis[name] ??= new Map());
  if (!all.has(key)) all.set(key, { places: null, kinds: null, changed: null, hovered: null, told: null, hidden: new Map() });
  return all.get(key);
}

// A header in JSON after its length, then numbers.
function opened(bytes) {
  const whole = bytes instanceof Uint8Array ? bytes : new Uint8Array(bytes);
  const size = new DataView(whole.buffer, whole.byteOffset, 4).getUint32(0, true);
  const head = JSON.parse(new TextDecoder().decode(whole.subarray(4, 4 + size)));
  return { head, body: whole.slice(4 + size) };
}
