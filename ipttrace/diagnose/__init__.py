"""Why a packet met its fate: small pure functions over its path and the rules."""
