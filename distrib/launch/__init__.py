"""How ranks are started, watched, and restarted."""
