"""One folder per task: what is particular to language models, and later to other kinds."""
