"""How ranks come to be and stay alive."""
