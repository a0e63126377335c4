"""Operations that quire's models are made of, each with a readable reference and faster versions."""
