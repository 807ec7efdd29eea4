"""Reconciliation of any kind: plans as data, and the code that carries them out.

A kind supplies its resources, `observe` and `plan` (see `kind.Kind`); nothing here names one.
"""
