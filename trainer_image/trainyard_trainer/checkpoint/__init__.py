"""The checkpoint contract: manifest last, atomic rename, owner epochs."""
