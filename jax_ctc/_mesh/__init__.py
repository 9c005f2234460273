"""Where the parts of a batch lie: placement, varying axes, the relay."""
