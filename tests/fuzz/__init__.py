"""A seeded fuzzer of the command line: every command, on valid files and options with something wrong in them."""
