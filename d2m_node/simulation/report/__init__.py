"""What a simulation leaves behind: its log, its figures, its outcome."""
