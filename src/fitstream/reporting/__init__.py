"""What people see: the line while a model trains, and the files that tell how it went."""
