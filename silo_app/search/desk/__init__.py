"""The silo's asking process: it holds connections and the encoder, and asks for the hospital's own programs."""
