"""HTTP endpoints of the agent. They read values and callables that the agent passes in."""
