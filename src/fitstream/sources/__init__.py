"""Where samples come from: one file a family. `base` holds the two abstract classes."""
