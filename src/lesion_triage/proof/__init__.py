"""The certificate put to the proof on real logits, beside rules whose promise must break."""
