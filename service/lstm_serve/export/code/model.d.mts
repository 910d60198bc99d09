/** The labels of the outputs, where there are any. */
export const CLASSES: string[] | null;
/** The names of the input's columns, where there are any. */
export const FEATURES: string[] | null;
export type Nested = number[] | Nested[];
/** One row: $shape, as nested arrays or as a flat one, to $output; several by their names. */
export function predict(input: $input): $result;
