"""How accurately and how fast engines read pictures whose text is known."""
