"""What runs: the ring of slots, the lanes that fill them, and the pipeline that keeps batches in order."""
