"""What an operator runs beside `pulumi up`."""
