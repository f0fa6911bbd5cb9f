"""Conversations and instructions: what they are read from, what of them is trained on, and how they are scored."""
