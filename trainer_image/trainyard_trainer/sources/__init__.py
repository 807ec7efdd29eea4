"""Where models and datasets come from: the hub and the file system."""
