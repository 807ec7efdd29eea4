"""Makes the exports of a run: each one completely or not at all, and once."""
