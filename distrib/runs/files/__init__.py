"""Writing files so that crashes, full disks and other processes do no harm."""
