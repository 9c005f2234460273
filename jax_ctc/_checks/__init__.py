"""What comes in: static mistakes raise, traced ones become status bits."""
