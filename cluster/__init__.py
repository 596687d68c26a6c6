"""Cluster setup files, and `cluster.lab`, which emulates a cluster of several hosts on one Linux machine."""
