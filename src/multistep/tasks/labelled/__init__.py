"""What a label is, of texts and of images: one class, several, or a number; its loss, its scores, its words."""
