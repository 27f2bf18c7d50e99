"""Sessions and what people make of them: store, ratings, corrections, the form, review and comparison."""
