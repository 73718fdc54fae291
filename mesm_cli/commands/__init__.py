"""One module a subcommand: parse, call one library function, render."""
