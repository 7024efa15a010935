"""What the commands of the command line do, and how a terminal shows it."""
