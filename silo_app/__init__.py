"""What runs inside a hospital's silo, and asks other hospitals."""
