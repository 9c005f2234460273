"""What is drawn, once, for alignments and for the doctor."""
