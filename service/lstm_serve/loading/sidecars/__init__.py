"""What lies beside a model's file: the card, the golden predictions, the architecture of weights alone."""
