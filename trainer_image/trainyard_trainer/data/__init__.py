"""Reading and writing dataset files for every task."""
