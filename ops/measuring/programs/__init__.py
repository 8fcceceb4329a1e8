"""What is mounted into the Jobs. Nothing here imports anything but the standard library and what lies beside it."""
