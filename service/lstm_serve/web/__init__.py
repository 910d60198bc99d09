"""HTTP: one way of every POST, one table from what went wrong to a status, and a dialect a module."""
