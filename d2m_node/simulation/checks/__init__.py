"""What must hold in every block of a simulation."""
