"""What a model is: its nodes, what it takes and answers, what is known of it. Reads no file of Keras."""
