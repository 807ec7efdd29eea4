"""Several processes that train one model together: who they are, what they agree on, who starts and ends them."""
