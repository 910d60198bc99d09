"""Each layer of Keras lowered to operations of the engine: one function a class, and the table of them."""
