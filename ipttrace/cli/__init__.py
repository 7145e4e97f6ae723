"""The command line: one file a subcommand, and the composition root."""
