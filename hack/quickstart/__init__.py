"""The quickstart: QLoRA fine-tuning of a small model on this machine's CPU, without a cluster, Docker or root."""
