"""Files that Keras saved, of every age, to a Model. What a file is, its content says, never its name. Knows no HTTP."""
