"""What goes out: files whole or not at all, and text that shows what is in it."""
