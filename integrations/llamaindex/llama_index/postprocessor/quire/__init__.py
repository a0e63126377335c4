"""`VllmRerank`: reorders retrieved nodes by a cross-encoder on quire."""
