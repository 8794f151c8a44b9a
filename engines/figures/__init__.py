"""Pictures of clips, reconstructions, probabilities and masks."""
