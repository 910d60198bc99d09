"""What lies beside a model's file: the card, the golden predictions, the profile, the architecture of weights."""
