"""A simulated Cartesia API, and the receiver of the demo; both are independent of the agent."""
