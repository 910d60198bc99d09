"""The commands. Each imports what it needs once BLAS has been told its threads."""
