"""What teachers say of whole images, as a table."""
