"""Ray clusters: connecting to one, starting a local one, their hosts and what is sent to them."""
