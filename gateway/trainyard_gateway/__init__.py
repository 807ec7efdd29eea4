"""The gateway: takes progress reports from training pods and writes its share of the status."""
