"""What makes parts of the package, and checks them on machines that are rare."""
