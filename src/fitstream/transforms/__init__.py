"""What is done to a sample: images so far."""
