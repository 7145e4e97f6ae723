"""Figures of ipttrace beside those of its peers, measured in the same run: `scripts/bench`."""
