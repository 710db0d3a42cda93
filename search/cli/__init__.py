"""The command line, one module per group of commands: parse options, call the library, print."""
