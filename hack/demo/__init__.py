"""The demo: from nothing to a fine-tuned model on a real cluster, shown in the terminal."""
