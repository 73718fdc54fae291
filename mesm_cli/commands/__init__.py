"""One module for each command: parse the options, call the library, render the result."""
