"""Parts of pods that several kinds have: options, defaults of the chart, choice of nodes, small building blocks."""
