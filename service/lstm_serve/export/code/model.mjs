$header
//
// import { predict } from "./model.mjs";  // in node and in a browser

export const CLASSES = $classes;
export const FEATURES = $features;

const W = (() => {
  const bytes = Uint8Array.from(atob("$weights"), (char) => char.charCodeAt(0));
  const view = new DataView(bytes.buffer);
  return Float32Array.from({ length: $count }, (_, k) => view.getFloat32(4 * k, true));
})();

$functions

// One row: $shape, as nested arrays or as a flat one, to $output, nested likewise; several by their names.
export function predict(input) {
$lines
  return $result;
}
