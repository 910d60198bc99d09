"""A model, told to a person: its layers, the role of each array, the way to the answers, the values of one step."""
