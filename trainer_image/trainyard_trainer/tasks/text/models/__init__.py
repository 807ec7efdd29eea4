"""Loading of base models, quantisation and adapters."""
