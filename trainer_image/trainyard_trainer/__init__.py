"""The trainer: a task-independent training loop with fenced, verified checkpoints.

This file must not import torch.
"""
