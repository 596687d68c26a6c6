"""What every rank does, the same program under every launcher. Never imports ray."""
