"""Private namespaces, services, rules and probes, described in a file."""
