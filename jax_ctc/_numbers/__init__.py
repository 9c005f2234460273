"""Numbers that keep their digits: extended range, two floats; and masks."""
