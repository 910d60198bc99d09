"""An architecture as Keras writes it down: its layers, what each is called on, and their options, key by key."""
