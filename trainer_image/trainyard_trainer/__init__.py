"""The training program: one engine loop over tasks, with checkpoints that cannot be lost.

Imports of torch stay out of this file.
"""
