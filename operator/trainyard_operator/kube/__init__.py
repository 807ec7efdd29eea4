"""Everything that talks to the API server or mirrors it; no decisions."""
