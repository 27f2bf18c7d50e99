"""General ability: a frozen set of instructions that no training set is made from, answered before and after."""
