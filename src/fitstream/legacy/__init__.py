"""The `fit_generator` family, for programs written for Keras 1 and 2: their classes, methods and names on Keras 3."""
