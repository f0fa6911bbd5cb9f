"""Text generation over all kinds of data: what the rooms of text, conversations and preferences have in common."""
