"""What Python users hold: how data are given, what shows a run as it goes on, and what it came to."""
