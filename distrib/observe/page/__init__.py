"""Self-contained HTML pages: sections, tables that scroll, and charts, in light and dark."""
