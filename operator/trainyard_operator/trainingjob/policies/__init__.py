"""Decisions about one job, one policy a file; `policy_chain` applies them in order."""
