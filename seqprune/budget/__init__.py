"""The whole network: what channels cost, what their loss costs, and one choice for a target."""
