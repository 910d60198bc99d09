"""What is to be said of each operation: its arrays, its formulas, its lines of NumPy. One function an operation."""
