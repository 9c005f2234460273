"""The losses, their one derivative rule, and how losses add up."""
