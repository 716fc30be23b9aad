"""A folder of own videos as an index that follows it, and the page that searches it."""
