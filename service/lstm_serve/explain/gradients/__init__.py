"""Gradients: for each operation of the engine how a gradient by its outputs becomes one by its inputs, or why not."""
