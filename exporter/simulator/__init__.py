"""A Cartesia API in a box and the demo's receiver; nothing of the agent may be imported here."""
