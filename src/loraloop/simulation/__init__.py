"""Made-up users and recorded ones, shown to the loop's rules tick by tick."""
