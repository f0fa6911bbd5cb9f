"""Preferences: of two answers to a prompt, the one that was chosen."""
