"""Several processes that train one model: membership, collectives, launcher, rendezvous of pods."""
