"""`ops up`: a stack of target `kubernetes`, from nothing to running, with or without the Pulumi CLI."""
