"""Each layer of Keras lowered to an operation of the engine: one function a class, and the table of them."""
