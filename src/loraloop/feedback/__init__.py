"""Sessions, ratings and corrections: their store, the rating form, review and comparison of versions."""
