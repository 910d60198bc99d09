"""A model, told to a person: its layers, what each array is, the values of one step, and why it answered so."""
