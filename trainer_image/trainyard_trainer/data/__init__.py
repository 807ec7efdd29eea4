"""Reading, checking, tokenising and packing of training rows."""
