"""What `silo doctor` looks at, and what it says to do: each check is a function that returns what it found."""
