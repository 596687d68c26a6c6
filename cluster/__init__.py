"""Ways to get a cluster: `cluster.lab` makes one of many hosts on a single Linux machine."""
