"""The exposition: what a scrape returns."""
