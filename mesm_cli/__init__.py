"""The command line of mesm."""
