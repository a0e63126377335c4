"""Models: one file per architecture, a registry of them, and the loader of their weights.

model = load_model(find_model(config), config)      # quire.models.loader, quire.hub
hidden = model(ids, positions, kv, meta)            # [tokens, hidden_size]
scores = model.logits(hidden[rows])                 # float32 [rows, vocab_size]
"""
