"""What a finished run leaves to use, one file per format."""
