"""Export formats of text models, one file per format."""
