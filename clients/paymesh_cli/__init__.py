"""`paymesh`, the command line of whoever runs the platform."""
