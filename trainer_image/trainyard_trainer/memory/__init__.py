"""How many bytes a run needs on its device, told before anything is loaded."""
