"""What watches losses and gradients, and what it says."""
