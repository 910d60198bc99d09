"""The text of the files of an exported JavaScript module, around what is computed."""

MODULE = """\
{header}
//
// import {{ predict }} from "./model.mjs";  // in node and in a browser

export const CLASSES = {classes};
export const FEATURES = {features};

const W = (() => {{
  const bytes = Uint8Array.from(atob("{weights}"), (char) => char.charCodeAt(0));
  const view = new DataView(bytes.buffer);
  return Float32Array.from({{ length: {count} }}, (_, k) => view.getFloat32(4 * k, true));
}})();

{functions}

// One input, {shape}, as nested arrays or as a flat one, to {output}, nested likewise.
export function predict(input) {{
  const x = value(input, {sizes}, {narrow});
{lines}
  return nested({last}.d, {last}.s);
}}
"""

TYPES = """\
/** The labels of the outputs, where there are any. */
export const CLASSES: string[] | null;
/** The names of the input's columns, where there are any. */
export const FEATURES: string[] | null;
export type Nested = number[] | Nested[];
/** One input, {shape}, as nested arrays or as a flat one, to {output}. */
export function predict(input: Nested | ArrayLike<number>): Nested;
"""

CHECK = """\
// node check.mjs: compare with the golden predictions ({whose}); node check.mjs X.json Y.json: answer others.
import {{ readFileSync, writeFileSync }} from "node:fs";
import {{ predict }} from "./model.mjs";

const read = (path) => JSON.parse(readFileSync(path, "utf8"));
if (process.argv.length > 3) {{
  writeFileSync(process.argv[3], JSON.stringify(read(process.argv[2]).map(predict)));
}} else {{
  const golden = read(new URL("./model.golden.json", import.meta.url));
  let worst = 0;
  golden.x.forEach((x, k) => {{
    const expected = golden.y[k].flat(Infinity);
    predict(x).flat(Infinity).forEach((y, j) => {{
      const difference = Math.abs(y - expected[j]) / Math.max(golden.unit[j], Math.abs(expected[j]));
      if (!(difference <= worst)) worst = difference;
    }});
  }});
  console.log(`the largest difference is ${{worst.toPrecision(2)}}`);
  process.exitCode = worst <= {tolerance} ? 0 : 1;
}}
"""
