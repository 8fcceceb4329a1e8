"""Two plans of one stack, compared: what the step from one to the other means to those who read, pay and call."""
