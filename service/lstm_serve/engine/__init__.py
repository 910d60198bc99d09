"""Arrays in, arrays out: the layers and the model. Knows no file and no HTTP."""
