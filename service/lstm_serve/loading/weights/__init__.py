"""Arrays to layers: by name, by order, or, where there is no architecture, by what their shapes tell."""
