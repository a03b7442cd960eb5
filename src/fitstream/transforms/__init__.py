"""What is done to a sample: images and sequences."""
